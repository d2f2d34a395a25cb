"""The GPUs of this host, found without loading a library."""
