"""What the memories of HiPPO refuse, and how they say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest

from ssm_core import (
    DomainError,
    DTypeError,
    MixedArraysError,
    OptionError,
    ShapeError,
    hippo_project,
    hippo_reconstruct,
)

u, ten = np.ones(10), np.arange(1.0, 11)
c = np.ones((10, 4))
WRONG: list[tuple[Callable[[], Any], type, str]] = [
    (lambda: hippo_project([1.0], "legs", 4), DTypeError, r"u is a list.*asarray\(u\)"),
    (lambda: hippo_project(np.ones(3, int), "legs", 4), DTypeError, "u has dtype int64"),
    (lambda: hippo_project(np.asarray(1.0), "legs", 4), ShapeError, r"axis of time.*u: \(\)"),
    (lambda: hippo_project(u, "legz", 4), OptionError, "unknown measure 'legz'. Known: 'legs'"),
    (lambda: hippo_project(u, None, 4), OptionError, "unknown measure None"),
    (lambda: hippo_project(u, "foud", 4, dt=0.1), OptionError, r"not orthogonal.*scan\(\(\*hippo\('foud'"),
    (lambda: hippo_project(u, "legsd", 4, dt=0.1), OptionError, "not orthogonal"),
    (lambda: hippo_project(u, "legs", 0), ShapeError, "N = 0"),
    (lambda: hippo_project(u, "legs", 4.0), DTypeError, "N = 4.0 is a float"),
    (lambda: hippo_project(u, "fout", 5, dt=0.1), ShapeError, "N = 5 is odd.*N=6"),
    (lambda: hippo_project(u, "lmu", 4), OptionError, r"'lmu' needs the time between samples.*dt=0\.01"),
    (lambda: hippo_project(u, "lmu", 4, dt=0.1, times=ten), OptionError, "Give one of them"),
    (lambda: hippo_project(u, "lmu", 4, dt=0.1, method="foh"), OptionError, "unknown method 'foh'. Known: 'bilinear'"),
    (lambda: hippo_project(u, "lmu", 4, dt=0.1, method=["zoh"]), OptionError, "unknown method"),
    (lambda: hippo_project(u, "lmu", 4, dt=0.1, alpha=0.5), OptionError, "'lmu' has no alpha.*'glagt' has"),
    (lambda: hippo_project(u, "glagt", 4, dt=0.1, alpha=2.0), DomainError, "alpha = 2.0 must lie strictly"),
    (lambda: hippo_project(u, "lmu", 4, dt=0.0), DomainError, "dt = 0.0 must be positive"),
    (lambda: hippo_project(u, "legs", 4, dt=-1), DomainError, "dt = -1.0 must be positive"),
    (lambda: hippo_project(u, "lmu", 4, dt="0.1"), DTypeError, "dt = '0.1' is a str"),
    (lambda: hippo_project(u, "lmu", 4, dt=[0.1]), DTypeError, "dt = .* is a list"),
    (lambda: hippo_project(u, "lmu", 4, dt=ten), ShapeError, r"dt has shape \(10,\).*times=times"),
    (lambda: hippo_project(u, "lmu", 4, dt=0.1, window=0), DomainError, "window = 0.0 must be positive"),
    (lambda: hippo_project(u, "legs", 4, window=2.0), OptionError, "all the past as its window.*Leave window out"),
    (lambda: hippo_project(u, "legs", 4, times=[1.0]), DTypeError, "times is a list"),
    (lambda: hippo_project(u, "legs", 4, times=np.arange(10)), DTypeError, r"times has dtype int64.*astype\(times"),
    (lambda: hippo_project(u, "legs", 4, times=ten[:9]), ShapeError, r"\(\.\.\., 10\), not 9.*times: \(9,\)"),
    (lambda: hippo_project(u, "legs", 4, times=np.arange(11.0)), ShapeError, r"\(\.\.\., 10\), not 11"),
    (lambda: hippo_project(u, "legs", 4, times=ten[0]), ShapeError, "not a single one"),
    (lambda: hippo_project(u, "legs", 4, times=ten[::-1]), DomainError, "times must increase"),
    (lambda: hippo_project(u, "lmu", 4, times=np.ones(10)), DomainError, "times must increase"),
    (lambda: hippo_project(u, "legs", 4, times=ten - 1), DomainError, "from start to the first"),
    (lambda: hippo_project(u, "legs", 4, times=ten - 5, method="zoh"), DomainError, "begins at time 0"),
    (lambda: hippo_project(u, "legs", 4, start=-1), DomainError, "start = -1.0 is negative"),
    (lambda: hippo_project(u, "legs", 4, times=ten, start=3.0), DomainError, "from start to the first"),
    (lambda: hippo_project(u[:1], "lmu", 4, times=ten[:1]), OptionError, "a single sample has no step yet.*start="),
    (lambda: hippo_project(u, "legs", 4, times=ten * np.nan), DomainError, "times holds NaN"),
    (lambda: hippo_project(u * np.inf, "legs", 4), DomainError, "u holds NaN or inf"),
    (lambda: hippo_project(u, "legs", 4, initial=[0.0]), DTypeError, "initial is a list"),
    (lambda: hippo_project(u, "legs", 4, initial=ten), ShapeError, r"end with 4 coefficients.*initial: \(10,\)"),
    (lambda: hippo_project(np.ones((3, 10)), "legs", 4, initial=np.ones((2, 4))), ShapeError, "do not broadcast"),
    (lambda: hippo_project(np.ones((3, 10)), "legs", 4, times=np.ones((2, 10))), ShapeError, "do not broadcast"),
    (lambda: hippo_project(u, "legs", 4, times=array_api_strict.ones(10)), MixedArraysError, "several libraries"),
    (lambda: hippo_reconstruct([1.0], "legs", ten), DTypeError, "coefficients is a list"),
    (lambda: hippo_reconstruct(c, "legs", 0.5), DTypeError, "points is a float"),
    (lambda: hippo_reconstruct(c, "legs", np.asarray(0.5)), ShapeError, r"points must be an array \(\.\.\., K\)"),
    (lambda: hippo_reconstruct(np.asarray(1.0), "legs", ten), ShapeError, "coefficients must be an array"),
    (lambda: hippo_reconstruct(c.astype(int), "legs", ten), DTypeError, "coefficients has dtype int64"),
    (lambda: hippo_reconstruct(c, "legs", ten + 0j), DTypeError, "points has dtype complex128"),
    (lambda: hippo_reconstruct(c, "foud", ten), OptionError, "not orthogonal"),
    (lambda: hippo_reconstruct(c[:, :3], "fout", ten), ShapeError, "N = 3 is odd"),
    (lambda: hippo_reconstruct(c, "lmu", ten), DomainError, r"points must lie in \[0, 1\].*largest: 10"),
    (lambda: hippo_reconstruct(c, "lagt", -ten), DomainError, "smallest: -10"),
    (lambda: hippo_reconstruct(c, "lmu", ten, window=-1.0), DomainError, "window = -1.0 must be positive"),
    (lambda: hippo_reconstruct(c, "glagt", ten - 1, alpha=-0.5), DomainError, "infinite at 0 for alpha = -0.5"),
    (lambda: hippo_reconstruct(c, "legs", array_api_strict.ones(2)), MixedArraysError, "several libraries"),
    (lambda: hippo_reconstruct(c * np.nan, "legs", ten / 10), DomainError, "coefficients holds NaN"),
    (lambda: hippo_reconstruct(np.ones((3, 4)), "legs", np.ones((2, 5))), ShapeError, "do not broadcast"),
    (lambda: hippo_reconstruct(c, "legs", ten / 10, beta=1.0), OptionError, "'legs' has no beta"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=lambda x: x[:40] if isinstance(x, str) else "")
def test_refused(call: Callable[[], Any], error: type, message: str):
    with pytest.raises(error, match=message) as found:
        call()
    assert str(found.value).startswith("hippo_")


def test_values_on_any_device_on_request():
    torch = pytest.importorskip("torch")
    wrong, one = torch.tensor([2.0, 1.5]), torch.ones(2)
    assert hippo_project(one, "legs", 2, times=wrong).shape == (2, 2)
    with pytest.raises(DomainError, match="times must increase"):
        hippo_project(one, "legs", 2, times=wrong, check_values=True)
    with pytest.raises(DomainError, match="points must lie"):
        hippo_reconstruct(one, "legs", wrong, check_values=True)
