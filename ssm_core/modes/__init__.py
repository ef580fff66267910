"""The ways to run a system over a sequence. They compute the same function.

| mode  | how                                                           | needs                          |
|-------|---------------------------------------------------------------|--------------------------------|
| conv  | one FFT convolution with the kernel                           | a time-invariant system        |
| chunk | Toeplitz products inside chunks, states between them          | a time-invariant system        |
| scan  | the recurrence, chunk by chunk, states never kept             | nothing                        |

Each takes a `Run` and returns (y without the direct term, last state or None).
"""

from __future__ import annotations

from .chunked import run_chunks
from .convolved import run_convolution
from .job import Run
from .modal import run_modal
from .recurrent import run_steps

__all__ = ["Run", "run_chunks", "run_convolution", "run_modal", "run_steps"]
