"""Gated linear attention with a decay a channel: the walk over chunks and its adjoint."""
