"""The selective scan of PyTorch on a CPU, whose gradients are explicit, against the differentiated generic body."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from ssm_core import selective_scan, use_backend  # noqa: E402

BATCH, H, N, L = 2, 4, 3, 11


CHUNKS = pytest.mark.parametrize("chunk", [1, 4, None])  # of 11 steps: single ones, a last chunk that is shorter, all


def draw(B: Any, C: Any) -> dict[str, Any]:
    """Inputs; rows that are constant (0 groups), or of some groups."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    found = {"u": normal(BATCH, L, H).mT, "dt": normal(BATCH, H, L).sigmoid(), "A": -normal(H, N).exp()}
    rows = {name: normal(BATCH, groups, N, L) if groups else normal(H, N) for name, groups in (("B", B), ("C", C))}
    return {name: x.requires_grad_() for name, x in (found | rows | {"initial": normal(BATCH, H, N)}).items()}


@pytest.mark.parametrize(("B", "C"), list(itertools.product((0, 1, 2), (0, 1, 4))))
@CHUNKS
@pytest.mark.parametrize("masks", [(), ("reset",), ("lengths",), ("reset", "lengths")])
def test_values_and_gradients(B: int, C: int, masks: tuple[str, ...], chunk: int | None):
    inputs = draw(B, C)
    given: dict[str, Any] = {
        "reset": torch.arange(BATCH * L).reshape(BATCH, L) % 5 == 3,
        "lengths": torch.tensor([L, L - 4]),
    }
    options = {name: given[name] for name in masks}
    weights = torch.linspace(-1, 2, BATCH * H * L, dtype=torch.float64).reshape(BATCH, H, L)
    if "lengths" in masks:
        weights = weights * (torch.arange(L) < given["lengths"][:, None, None])

    def everything() -> list[torch.Tensor]:
        y, last = selective_scan(**inputs, **options, return_state=True, chunk=chunk)
        loss = (weights * y).sum() + (last * last).sum()
        return [weights * y, last, *torch.autograd.grad(loss, list(inputs.values()))]

    found = everything()
    with use_backend("generic"):
        wanted = everything()
    for x, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, right, rtol=1e-11, atol=1e-11)


def test_only_the_gradients_that_are_wanted():
    inputs = draw(2, 1)
    for name in inputs:
        given = {k: x if k == name else x.detach() for k, x in inputs.items()}
        (one,) = torch.autograd.grad(selective_scan(**given, chunk=4).sum(), given[name])
        every = torch.autograd.grad(selective_scan(**inputs, chunk=4).sum(), inputs[name])
        torch.testing.assert_close(one, every[0])


@CHUNKS
def test_second_derivatives(chunk: int | None):
    inputs = draw(2, 0)
    names = list(inputs)

    def scan(*given: Any) -> Any:
        return selective_scan(**dict(zip(names, given, strict=True)), chunk=chunk)

    assert torch.autograd.gradgradcheck(scan, tuple(inputs.values()), fast_mode=True)


def test_inputs_are_not_written_to():
    inputs = draw(1, 1)
    before = {name: x.detach().clone() for name, x in inputs.items()}
    selective_scan(**inputs, chunk=4).sum().backward()
    for name, x in inputs.items():
        assert torch.equal(x.detach(), before[name])
