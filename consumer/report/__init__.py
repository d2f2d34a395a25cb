"""What a filter does to a collection: counts, the share removed from each group, and warnings before it is deleted."""
