"""Submit images for judging: `from producer import Client`."""

from producer.client import Client, Submitted

__all__ = ["Client", "Submitted"]
