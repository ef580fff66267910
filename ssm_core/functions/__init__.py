"""Functions of arrays: elementwise, norms, affine maps, matrix exponential, eigenvalues, convolutions."""
