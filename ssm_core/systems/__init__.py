"""Linear time-invariant systems: the records, their discretization, conversions and other packages' objects."""
