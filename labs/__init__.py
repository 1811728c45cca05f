"""Scripts around the book; `machine` is the virtual machine of labs/vm."""
