"""The ways to run a system over a sequence. They compute the same function.

| mode  | how                                                           | needs                          |
|-------|---------------------------------------------------------------|--------------------------------|
| conv  | one FFT convolution with the kernel                           | a time-invariant system        |
| chunk | Toeplitz products inside chunks, states between them          | a time-invariant system        |
| scan  | the recurrence, chunk by chunk, states never kept             | nothing                        |

Each takes a `Run` and returns (y without the direct term, last state or None). `modal` cuts a system of several inputs
into systems of one state each; `state_passing` is the chunk mode as one walk over the signal, for kernels that do it
so.
"""
