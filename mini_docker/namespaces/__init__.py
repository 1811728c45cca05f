"""What each namespace hides, and the steps that enter it."""
