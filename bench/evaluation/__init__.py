"""Whether the statistics of `vetline evaluate` keep what they promise."""
