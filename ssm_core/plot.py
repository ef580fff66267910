"""Pictures of systems, with matplotlib: poles, kernels, frequency responses, and what a memory holds.

Every function draws into the axes given as `ax`, or into the current ones, and returns them; further options go to the
lines. Arrays may be of any library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._arrays.errors import ShapeError, absent
from ._arrays.library import Array, to_numpy
from .measures.memory import hippo_reconstruct
from .time_invariant.frequency import frequency_response
from .time_invariant.frequency import poles as poles_of
from .time_invariant.kernels import kernel as kernel_of

__all__ = ["bode", "kernel", "memory", "poles"]


def poles(system: Any, *, ax: Any = None, **line: Any) -> Any:
    """The poles of a system in the complex plane, with the line that stable ones do not cross.

    system   as in `poles`; the line is the unit circle of a discrete one, else the imaginary axis
    ax       matplotlib's Axes
    returns  the Axes

    Raises MissingPackageError without matplotlib, and the errors of `poles`.

    >>> import ssm_core
    >>> ax = ssm_core.plot.poles(ssm_core.diagonal_init("lin", 16))
    """
    found = to_numpy(poles_of(system)).ravel()
    ax = _axes("poles", ax)
    if getattr(system, "discrete", False):
        turn = np.exp(1j * np.linspace(0, 2 * np.pi, 200))
        ax.plot(turn.real, turn.imag, color="0.6", linewidth=0.8)
        ax.set_aspect("equal")
    else:
        ax.axvline(0, color="0.6", linewidth=0.8)
    ax.plot(found.real, found.imag, **{"linestyle": "none", "marker": "x"} | line)
    ax.set(xlabel="Re", ylabel="Im")
    return ax


def kernel(system: Any, length: int, *, dt: Any = None, method: str = "zoh", ax: Any = None, **line: Any) -> Any:
    """The convolution kernel of a system over time: its response to a unit impulse.

    system, length, dt, method  as in `kernel`; without dt time counts in steps
    ax                          matplotlib's Axes
    returns                     the Axes; a line for every system, output and input

    Raises MissingPackageError without matplotlib, and the errors of `kernel`.

    >>> import numpy, ssm_core
    >>> system = ssm_core.Diagonal(numpy.asarray([-1 + 5j]), numpy.ones(1), numpy.ones(1), conj_pairs=True)
    >>> ax = ssm_core.plot.kernel(system, 200, dt=0.02)
    """
    taps = to_numpy(kernel_of(system, length, dt=dt, method=method))
    time = np.arange(length) if dt is None else float(dt) * np.arange(length)
    ax = _axes("kernel", ax)
    ax.plot(time, taps.reshape(-1, length).T.real, **line)
    ax.set(xlabel="step" if dt is None else "time", ylabel="kernel")
    return ax


def bode(system: Any, omega: Array, *, axes: Any = None, **line: Any) -> Any:
    """Magnitude and phase of a frequency response, over a logarithmic axis of angular frequencies.

    It is H(i w) of a continuous system and H(e^iw) of a discrete one.

    system   as in `frequency_response`, with one input and one output
    omega    (W,) angular frequencies, above 0
    axes     two of matplotlib's Axes, the upper and the lower one; those of the current figure if None
    returns  the two Axes

    Raises ShapeError for several responses, MissingPackageError without matplotlib, and the errors of
    `frequency_response`.

    >>> import numpy, ssm_core
    >>> system = ssm_core.Diagonal(numpy.asarray([-1.0]), numpy.ones(1), numpy.ones(1))
    >>> upper, lower = ssm_core.plot.bode(system, numpy.logspace(-2, 2, 100))
    """
    response = to_numpy(frequency_response(system, omega))
    if response.ndim != 1:
        raise ShapeError(
            f"bode: the response has shape {response.shape}, but one curve has (W,): several systems, inputs or "
            "outputs. Draw them one by one, for example from ssm_core.frequency_response."
        )
    omega = to_numpy(omega)
    upper, lower = _two_axes(axes)
    upper.semilogx(omega, 20 * np.log10(np.maximum(np.abs(response), np.finfo(float).tiny)), **line)
    lower.semilogx(omega, np.degrees(np.unwrap(np.angle(response))), **line)
    upper.set(ylabel="magnitude in dB")
    lower.set(xlabel="angular frequency", ylabel="phase in degrees")
    return upper, lower


def memory(coefficients: Array, measure: str, *, window: float = 1.0, n: int = 500, ax: Any = None, **line: Any) -> Any:
    """The past as the coefficients of `hippo_project` remember it, now at the right end.

    coefficients     (N,), those of one step
    measure, window  as in `hippo_reconstruct`
    n                the number of points drawn
    ax               matplotlib's Axes
    returns          the Axes; time is negative, 0 is now

    Raises MissingPackageError without matplotlib, and the errors of `hippo_reconstruct`.

    >>> import numpy, ssm_core
    >>> c = ssm_core.hippo_project(numpy.sin(numpy.arange(500) / 30), "legs", 32)
    >>> ax = ssm_core.plot.memory(c[-1], "legs")
    """
    ago = np.linspace(0.0, window, n)
    past = hippo_reconstruct(to_numpy(coefficients), measure, ago, window=window)
    ax = _axes("memory", ax)
    ax.plot(-ago, past, **line)
    ax.set(xlabel="time from now", ylabel="remembered")
    return ax


def _pyplot(operation: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise absent(f"plot.{operation}", error, "matplotlib", extra="plot") from error
    return pyplot


def _axes(operation: str, ax: Any) -> Any:
    return _pyplot(operation).gca() if ax is None else ax


def _two_axes(axes: Any) -> Any:
    if axes is not None:
        return axes
    figure = _pyplot("bode").gcf()
    return figure.axes[:2] if len(figure.axes) >= 2 else figure.subplots(2, 1, sharex=True)
