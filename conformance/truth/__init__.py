"""What everything should give, written as plainly as possible in NumPy float64 and mpmath.

Nothing here uses ssm_core, but for the names of options and parameters in `layers` and `models`.
"""

from .functions import (
    convolve,
    elementwise,
    expm,
    gelu,
    gelu_tanh,
    heard,
    linear_scan,
    over_batch,
    phi1,
    sigmoid,
    softplus,
)
from .systems import (
    Plain,
    discrete,
    discretize,
    discretize_poles,
    frequency_response,
    kernel,
    plain,
    recurrence,
)

__all__ = [
    "Plain",
    "convolve",
    "discrete",
    "discretize",
    "discretize_poles",
    "elementwise",
    "expm",
    "frequency_response",
    "gelu",
    "gelu_tanh",
    "heard",
    "kernel",
    "linear_scan",
    "over_batch",
    "phi1",
    "plain",
    "recurrence",
    "sigmoid",
    "softplus",
]
