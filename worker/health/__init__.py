"""Whether this worker is live and ready, who is told, and when it takes nothing in."""
