"""Exported programs in real arithmetic, for what has no complex numbers, such as ONNX."""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import pad
from torch.utils._pytree import tree_leaves, tree_map

from .onnx_operators import OPSET, fourier_transform, onnx_operators

REAL_OF = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class Halves(NamedTuple):
    """re + i im."""

    re: Any
    im: Any


def _of(x: Any) -> Halves:
    """Halves of what may be real."""
    if isinstance(x, Halves):
        return x
    if isinstance(x, complex):
        return Halves(x.real, x.imag)
    return Halves(x, torch.zeros_like(x) if isinstance(x, Tensor) else 0.0)


def _is_complex(x: Any) -> bool:
    return isinstance(x, Halves | complex)


def _halfwise(op: Any, *args: Any, **kwargs: Any) -> Halves:
    """What moves numbers, or is linear in one array, does the same to both halves."""

    def half(k: int) -> Any:
        return op(*tree_map(lambda x: x[k] if isinstance(x, Halves) else x, args, is_leaf=_is_complex), **kwargs)

    return Halves(half(0), half(1))


def _summed(op: Any, a: Any, b: Any, **kwargs: Any) -> Halves:
    """A sum or a difference."""
    (a, p), (b, q) = _of(a), _of(b)
    return Halves(op(a, b, **kwargs), op(p, q, **kwargs))


def _product(op: Any, a: Any, b: Any) -> Halves:
    """Of numbers or of matrices: (a + i p) (b + i q)."""
    if not _is_complex(a):
        return Halves(op(a, _of(b).re), op(a, _of(b).im))
    if not _is_complex(b):
        return Halves(op(_of(a).re, b), op(_of(a).im, b))
    (a, p), (b, q) = _of(a), _of(b)
    return Halves(op(a, b) - op(p, q), op(a, q) + op(p, b))


def _quotient(op: Any, a: Any, b: Any) -> Halves:
    """a / b = a conj(b) / |b|^2."""
    if not _is_complex(b):
        return Halves(a.re / b, a.im / b)
    b, q = _of(b)
    square = b * b + q * q
    return _product(torch.mul, a, Halves(b / square, -q / square))


def _exp(op: Any, z: Halves) -> Halves:
    size = torch.exp(z.re)
    return Halves(size * torch.cos(z.im), size * torch.sin(z.im))


def _chosen(op: Any, condition: Tensor, a: Any, b: Any) -> Halves:
    """Of two numbers by a condition; their shapes and dtypes are those of the halves."""
    (a, p), (b, q) = _of(a), _of(b)
    return Halves(torch.where(condition, a, b), torch.where(condition, p, q))


def _joined(op: Any, arrays: list[Any], *args: Any) -> Halves:
    """Concatenated or stacked."""
    halves = [_of(x) for x in arrays]
    return Halves(op([x.re for x in halves], *args), op([x.im for x in halves], *args))


def _converted(op: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """In another precision; from real to complex, and to the real half."""
    wanted = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)), None)
    if wanted is not None and not wanted.is_complex:
        return _of(x).re.to(wanted)
    real = REAL_OF.get(wanted, _of(x).re.dtype) if wanted is not None else _of(x).re.dtype
    return Halves(_of(x).re.to(real), _of(x).im.to(real))


def _zeros(op: Any, *args: Any, **kwargs: Any) -> Halves:
    kwargs["dtype"] = REAL_OF[kwargs["dtype"]]
    x = op(*args, **kwargs)
    return Halves(x, torch.zeros_like(x))


def _zeros_like(op: Any, x: Halves, *args: Any, **kwargs: Any) -> Any:
    dtype = kwargs.pop("dtype", None)
    if dtype is not None and not dtype.is_complex:
        return op(x.re, *args, dtype=dtype, **kwargs)
    return Halves(op(x.re, *args, **kwargs), torch.zeros_like(x.im))


def _rfft(op: Any, x: Tensor, n: Any) -> Halves:
    """The first half of the spectrum of n real samples. Indices, unlike slices, ask nothing of a length not known."""
    k = torch.arange(n // 2 + 1, device=x.device)
    spectrum = fourier_transform(pad(x, (0, n - x.shape[-1]))[..., None]).index_select(-2, k).to(x.dtype)
    return Halves(spectrum[..., 0], spectrum[..., 1])


def _irfft(op: Any, z: Halves, n: Any) -> Tensor:
    """Re sum_k w_k z_k e^{2 pi i k t / n} / n: every frequency of the half stands for its conjugate too, w_k = 2, but
    for 0 and n / 2."""
    k = torch.arange(n, device=z.re.device)
    w = torch.where((k == 0) | (2 * k == n), 1.0, torch.where(2 * k < n, 2.0, 0.0))
    k = torch.where(2 * k <= n, k, 0)
    spectrum = torch.stack([w * z.re.index_select(-1, k), w * z.im.index_select(-1, k)], -1)
    return fourier_transform(spectrum, inverse=True)[..., 0].to(z.re.dtype)


# What the layers need, and what a head of one's own does with complex numbers: arithmetic, sums, other shapes.
_HALFWISE = (
    "broadcast_to", "contiguous", "expand", "flatten", "flip", "index", "mT", "movedim", "neg", "permute", "reshape",
    "select", "slice", "squeeze", "sum", "swapaxes", "transpose", "unflatten", "unsqueeze", "view",
)  # fmt: skip
RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_HALFWISE, _halfwise),
    **dict.fromkeys(("add", "sub"), _summed),
    **dict.fromkeys(("mul", "matmul"), _product),
    **dict.fromkeys(("cat", "concat", "stack"), _joined),
    "div": _quotient,
    "to": _converted,
    "zeros": _zeros,
    "zeros_like": _zeros_like,
    "exp": _exp,
    "fft_rfft": _rfft,
    "fft_irfft": _irfft,
    "where": _chosen,
    "rsub": lambda op, a, b: _summed(torch.sub, b, a),
    "abs": lambda op, z: torch.sqrt(z.re * z.re + z.im * z.im),
    "complex": lambda op, re, im: Halves(re, im),
    "real": lambda op, z: z.re if isinstance(z, Halves) else z,
    "imag": lambda op, z: z.im,
    **dict.fromkeys(("_conj", "conj_physical"), lambda op, z: Halves(z.re, -z.im)),
    "resolve_conj": lambda op, z: z,
    "view_as_real": lambda op, z: torch.stack([z.re, z.im], -1),
    "view_as_complex": lambda op, x: Halves(x[..., 0], x[..., 1]),
    "_assert_tensor_metadata": lambda op, *args, **kwargs: None,
}


class RealInterpreter(fx.Interpreter):
    """Runs a graph with every complex array as its halves; `known` are the nodes whose values are held already."""

    def __init__(self, module: fx.GraphModule, known: dict[fx.Node, Callable[[], Any]] | None = None) -> None:
        super().__init__(module)
        self._known = known or {}

    def run_node(self, n: fx.Node) -> Any:
        if n in self._known:
            return self._known[n]()
        value = n.meta.get("val")
        self._complex = isinstance(value, Tensor) and value.is_complex()
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is torch.ops.higher_order.scan:
            body, *rest = args
            return target(lambda *xs: RealInterpreter(body).run(*xs), *rest)
        leaves = tree_leaves((args, kwargs), is_leaf=_is_complex)
        if not (self._complex or any(map(_is_complex, leaves))):
            return super().call_function(target, args, kwargs)
        name = target.overloadpacket.__name__ if isinstance(target, torch._ops.OpOverload) else target.__name__
        if name not in RULES:
            raise NotImplementedError(
                f"onnx_program: {target} of complex numbers has no form in real arithmetic. Write that part of the "
                "module with real numbers, such as torch.view_as_real(z)."
            )
        return RULES[name](target, *args, **kwargs)


class RealProgram(nn.Module):
    """The module of an exported program, without complex numbers; what follows from its weights alone is held."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.inner = program.module(check_guards=False)
        with torch.no_grad():
            values = _constants(self.inner)
        self._known: dict[fx.Node, Callable[[], Any]] = {}
        for n, x in values.items():
            self._known[n] = self._held(n, x) if any(user not in values for user in n.users) else (lambda: None)

    def forward(self, *args: Tensor) -> Any:
        """The outputs of the program."""
        return RealInterpreter(self.inner, self._known).run(*args)

    def _held(self, n: fx.Node, x: Any) -> Callable[[], Any]:
        """What gives the value of a node, which is a buffer if it is an array."""
        if not isinstance(x, Tensor):
            return lambda: x
        name = f"known_{n.name}"
        self.register_buffer(name, (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).detach().clone())
        if x.is_complex():
            return lambda: Halves(getattr(self, name)[..., 0], getattr(self, name)[..., 1])
        return lambda: getattr(self, name)


def _constants(module: fx.GraphModule) -> dict[fx.Node, Any]:
    """The values of the nodes that depend on nothing but weights and numbers."""
    found: dict[fx.Node, Any] = {}
    for n in module.graph.nodes:
        if n.op == "get_attr":
            found[n] = operator.attrgetter(n.target)(module)
        elif n.op == "call_function" and all(parent in found for parent in n.all_input_nodes):
            args, kwargs = fx.node.map_arg((n.args, n.kwargs), found.__getitem__)
            found[n] = n.target(*args, **kwargs)
    return found


def onnx_program(
    module: nn.Module,
    *example: Tensor,
    dynamic_shapes: Any = None,
    opset_version: int | None = None,
    **options: Any,
) -> Any:
    """The forward of a module for ONNX, in real arithmetic, with its weights as they are now.

    example         inputs of the forward, by position
    dynamic_shapes  as of torch.export.export: for each input the axes whose size may change
    opset_version   of the operators, PyTorch's own choice if None. From 27 on gated linear attention, the delta rule
                    and short convolutions are the operators LinearAttention and CausalConvWithState, where they fit
    options         others of torch.onnx.export
    returns         torch.onnx.ONNXProgram: `.save(path)` writes it

    What follows from the weights alone, such as discrete systems, is computed now; arithmetic on complex numbers is
    written in their real and imaginary parts. Needs onnx and onnxscript. Raises NotImplementedError for an operation
    of complex numbers that has no such form, and what torch.export raises.

    >>> import torch
    >>> from ssm_core.adapters.torch import S4D, onnx_program
    >>> sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=2, max=4096)}
    >>> program = onnx_program(S4D(4), torch.ones(2, 70, 4), dynamic_shapes=(sizes,))  # doctest: +SKIP
    >>> program.save("layer.onnx")  # doctest: +SKIP
    """
    newest = opset_version is not None and opset_version >= OPSET
    shapes = None if dynamic_shapes is None else (tuple(dynamic_shapes),)
    with torch.no_grad():
        with onnx_operators() if newest else nullcontext():
            program = torch.export.export(module, example, dynamic_shapes=dynamic_shapes)
        real = torch.export.export(RealProgram(program), example, dynamic_shapes=shapes)
        version = None if newest else opset_version
        found = torch.onnx.export(real, (), dynamo=True, verbose=False, opset_version=version, **options)
    if newest and found is not None:  # PyTorch writes no operators that have another meaning there
        found.model.opset_imports[""] = opset_version
    return found
