"""`vetline doctor`: whether this machine and its settings are fit to judge images."""
