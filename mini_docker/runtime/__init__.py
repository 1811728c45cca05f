"""The OCI document becomes a plan, the plan a process."""
