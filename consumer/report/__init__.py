"""Reports what a filter removes from a collection: counts, shares by group, and warnings before anything is deleted."""
