"""The layers of ssm_core, a file each: whatever file of this folder holds CASES is found."""

from __future__ import annotations

import importlib
import pkgutil

from ..instance import Instance
from ..layer import GatedCases, LayerCases, TimeInvariantCases, WholeCases

LAYERS: dict[str, LayerCases] = {
    found.name: found
    for module in pkgutil.iter_modules(__path__)
    if (found := importlib.import_module(f"{__name__}.{module.name}").CASES)
}
TIME_INVARIANT = tuple(cases for cases in LAYERS.values() if isinstance(cases, TimeInvariantCases))
GATED = tuple(cases for cases in LAYERS.values() if isinstance(cases, GatedCases))
WHOLE = tuple(cases for cases in LAYERS.values() if isinstance(cases, WholeCases))
STREAMING = tuple(cases for cases in LAYERS.values() if cases not in WHOLE)  # those with a state

INSTANCES = tuple(instance for cases in STREAMING for instance in cases.all)
ONE_OF_EACH = tuple(instance for cases in STREAMING for instance in cases.one_each)
SMALL = tuple(case for cases in LAYERS.values() for case in cases.small_cases)
MODULES = {name: (cases.name, o) for cases in LAYERS.values() for name, o in cases.modules.items()}


def instance(name: str) -> Instance:
    """The instance of that name, of whatever layer."""
    return next(found for found in INSTANCES if found.name == name)
