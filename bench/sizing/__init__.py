"""What an installation of so many GPUs needs: what a verdict leaves in Postgres, measured; the rest is multiplication."""
