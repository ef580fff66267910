"""Processes that tests start."""

from __future__ import annotations

import os


def of_jax(devices: int) -> dict[str, str]:
    """The environment of a process for which JAX divides the CPU among devices; it compiles as this process does."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
