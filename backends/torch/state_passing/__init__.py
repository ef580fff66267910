"""Chunks of time-invariant systems with state passing."""
