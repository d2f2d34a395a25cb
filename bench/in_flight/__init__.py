"""Whether the number in flight that is found is a good one."""
