"""Running linear time-invariant systems: kernels, responses, the modes of a run, and steps."""
