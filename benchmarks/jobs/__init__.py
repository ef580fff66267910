"""The jobs, by name. H = 256 channels, 64 real states (32 conjugate pairs) and float32 where nothing else is said."""

from __future__ import annotations

from ..harness import Job
from . import (
    accelerated,
    convolutions,
    frameworks,
    gated_steppers,
    gated_steps,
    kernels,
    layers,
    mamba,
    matrix_states,
    memory,
    sashimi,
    scans,
    starting,
    steps,
    vector_states,
)

JOBS: dict[str, Job] = {
    **kernels.JOBS,
    **convolutions.JOBS,
    **scans.JOBS,
    **layers.JOBS,
    **mamba.JOBS,
    **accelerated.JOBS,
    **matrix_states.JOBS,
    **vector_states.JOBS,
    **gated_steps.JOBS,
    **gated_steppers.JOBS,
    **frameworks.JOBS,
    **memory.JOBS,
    **steps.JOBS,
    **sashimi.JOBS,
    **starting.JOBS,
}
