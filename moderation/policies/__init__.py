"""Data: the text that the model was trained on, a YAML file for each built-in policy, and counted tokens."""
