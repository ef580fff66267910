"""Decays that no input changes: held by steppers, and computed for one chunk by PyTorch."""

from __future__ import annotations

import pytest

import ssm_core

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("length", [64, 128, 100])
def test_a_repeated_row_is_as_good_as_its_copies(length: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, length, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    row = -torch.rand(3, dtype=torch.float64)
    repeated, copied = row.expand(2, length, 3), row.expand(2, length, 3).clone().requires_grad_()
    y = ssm_core.gated_linear_attention(q, k, v, repeated)
    z = ssm_core.gated_linear_attention(q, k, v, copied)
    torch.testing.assert_close(y, z, rtol=1e-12, atol=1e-12)
    slope = torch.randn_like(y)
    found, wanted = (torch.autograd.grad(out, (q, k, v), slope) for out in (y, z))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_gates_of_rg_lru_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    x, i, r = (torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    strongest = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ssm_core.rg_lru, (x, i, r, strongest))
    assert torch.autograd.gradgradcheck(ssm_core.rg_lru, (x, i, r, strongest))


@pytest.mark.parametrize("kind", ["Lightning", "RetNet", "RWKV5"])
def test_a_stepper_of_single_precision_takes_double(kind: str) -> None:
    layer = getattr(ssm_core.layers, kind)(64)
    params = {name: torch.as_tensor(x) for name, x in layer.initial_parameters().items()}
    u = torch.randn(1, 3, 64, dtype=torch.float64)
    step, state = layer.stepper(params), layer.initial_state(params, 1)
    for t in range(3):
        y, state = step(u[:, t], state)
    torch.testing.assert_close(y, layer.apply(params, u)[:, -1], rtol=1e-9, atol=1e-9)
