"""The gated delta rule: the walk over chunks and its adjoint."""
