"""Layers around a linear time-invariant system, one a file."""
