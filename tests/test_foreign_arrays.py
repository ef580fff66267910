"""Arrays that look like ours and compute otherwise are refused by name, with the call that converts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import ssm_core as s
from ssm_core import layers

LAYER = layers.S4(4, d_state=4)
PARAMS = LAYER.initial_parameters()
U = np.ones((2, 4), np.float32)
MADE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "matrix": (np.matrix, r"= numpy\.asarray\({}\)"),
    "masked": (lambda x: np.ma.masked_array(x, mask=x > 9), r"= {}\.filled\(0\.0\)"),
    "sparse matrix": (scipy.sparse.csr_matrix, r"= {}\.toarray\(\)"),
    "sparse array": (scipy.sparse.coo_array, r"= {}\.toarray\(\)"),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("kind", MADE)
def test_refused_by_name(kind: str):
    """In functions, systems, what is converted by xp=, parameters, signals, states and masks."""
    make, advice = MADE[kind]
    x, state = make(np.eye(2)), LAYER.initial_state(PARAMS, 2)
    step = LAYER.stepper(PARAMS)
    calls: dict[str, Callable[[], Any]] = {
        "x": lambda: s.special.silu(x),
        "A": lambda: s.expm(x),
        "b": lambda: s.linear_scan(0.5, x, axis=0),
        "poles": lambda: s.kernel(s.Diagonal(x, np.ones(2), np.ones(2)), 3, dt=0.1),
        "B": lambda: s.kernel((np.eye(2), x, np.ones(2)), 3, xp="numpy"),
        "C": lambda: s.kernel((np.eye(2), np.ones(2), x), 3),
        "u": lambda: LAYER.apply(PARAMS, x),
        "u_t": lambda: step(make(U), state),
        "D": lambda: LAYER.apply(PARAMS | {"D": make(PARAMS["D"])}, np.ones((1, 3, 4), np.float32)),
        "reset": lambda: LAYER.apply(PARAMS, np.ones((1, 3, 4), np.float32), reset=make(np.ones((1, 3)) > 0)),
    }
    for name, call in calls.items():
        with pytest.raises(s.DTypeError, match=rf"{name} is a .*{name} {advice.format(name)}"):
            call()


@pytest.mark.filterwarnings("ignore:Sparse CS", "ignore:The PyTorch API of nested")
def test_sparse_and_nested_tensors():
    torch = pytest.importorskip("torch")
    x = torch.eye(3)
    for sparse in (x.to_sparse(), x.to_sparse_csr(), x.to_sparse_csc()):
        with pytest.raises(s.DTypeError, match=r"sparse tensor.*A = A\.to_dense\(\)"):
            s.expm(sparse)
        with pytest.raises(s.DTypeError, match=r"to_dense: A is a sparse tensor"):
            s.to_dense(s.Dense(sparse, x[0], x[0]))
    with pytest.raises(s.DTypeError, match=r"nested tensor.*to_padded_tensor"):
        s.special.silu(torch.nested.as_nested_tensor([x, x[:1]], layout=torch.jagged))


def test_sparse_arrays_of_jax():
    jnp = pytest.importorskip("jax.numpy")
    from jax.experimental import sparse

    with pytest.raises(s.DTypeError, match=r"A is a .*BCOO.*A = A\.todense\(\)"):
        s.expm(sparse.BCOO.fromdense(jnp.eye(3)))


@pytest.mark.parametrize(("root", "advice"), [("dask.array.core", "compute"), ("pandas.core.frame", "to_numpy")])
def test_by_the_names_of_packages_that_are_not_here(root: str, advice: str):
    """As `sparse` and `xarray` are."""
    cls = type("Array", (), {"__module__": root, "shape": (2, 2), "__array_namespace__": lambda self: np})
    with pytest.raises(s.DTypeError, match=rf"A is a {root}\.Array.*A = A\.{advice}\(\)"):
        s.expm(cls())
