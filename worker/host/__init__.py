"""Commands that start processes on this host and keep them running: up, demo, and a worker for each GPU."""
