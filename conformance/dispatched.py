"""Groups of dispatched functions that rows of the capability table rest on."""

SCAN = ("linear_scan", "fold")
FFT = ("convolve", "fft_pair")
LONG = (*FFT, "exp", "chunks")  # convolution with the kernel of a diagonal system
MODES = (*FFT, "linear_scan", "fold", "exp", "expm")
MIXING = ("sigmoid", "gelu", "affine", "glu")
GATES = ("sigmoid", "silu", "softplus", "affine", "parted", "rms_norm")
