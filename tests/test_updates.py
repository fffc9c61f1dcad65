"""The lean updates against torch's own, to the bit."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from dynalab.optim.base import state_of
from dynalab.optim.lines import padded
from dynalab.optim.updates import fuse, make_step

CASES: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.01}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (torch.optim.Adam, {"lr": 0.01}),
    (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-4}),
    (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 1.0, "betas": (0.9, 0.98)}),
]
SHAPES = [(3, 5, 7), (3, 13), (3, 1)]
# Gradients lie in memory otherwise than their parameters, as those of a product do.


def _pair(kind: type[torch.optim.Optimizer], options: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in SHAPES]
    ours, theirs = ([lay(x).requires_grad_() for x in start] for lay in (padded, torch.clone))
    groups = [[{"params": x[:1]}, {"params": x[1:], "weight_decay": 0.0}] for x in (ours, theirs)]
    make: Any = kind
    return ours, theirs, *(make(group, foreach=True, **options) for group in groups)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_weights_and_state_are_torchs_to_the_bit(
    kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    ours, theirs, own, reference = _pair(kind, options)
    generator = torch.Generator().manual_seed(1)
    for step in range(30):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.mT.shape, generator=generator).mT
            other.grad = mine.grad.clone()
        for optimizer in (own, reference):
            for group in optimizer.param_groups:
                group["lr"] = options["lr"] / (1 + step)
        kept = [param.grad.clone() for param in ours]
        make_step(own)
        reference.step()
        assert all(torch.equal(param.grad, grad) for param, grad in zip(ours, kept, strict=True))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)
        states = own.state[mine], reference.state[other]
        assert set(states[0]) == set(states[1])
        for key, value in states[1].items():
            assert value is None or torch.equal(states[0][key], value)
            assert value is None or states[0][key].dtype == value.dtype


def test_an_optimizer_that_is_not_known_makes_its_own_update() -> None:
    class Twice(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            super().step(closure)

    param, other = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    param.grad = other.grad = torch.ones(3)
    make_step(Twice([param], lr=0.1, foreach=True))
    make_step(torch.optim.SGD([other], lr=0.1, maximize=True, foreach=True))
    assert torch.allclose(param, torch.full((3,), 0.8))
    assert torch.allclose(other, torch.full((3,), 1.1))


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_fused_kernels_make_the_same_updates(
    kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    ours, theirs, own, reference = _pair(kind, options)
    fuse(own)
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.mT.shape, generator=generator).mT
            other.grad = mine.grad.clone()
        kept = [param.grad.clone() for param in ours]
        make_step(own)
        reference.step()
        assert all(torch.equal(param.grad, grad) for param, grad in zip(ours, kept, strict=True))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6)
        assert set(state_of(own, mine)) == {key for key, x in reference.state[other].items() if x is not None}


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_a_runs_bits_do_not_depend_on_how_many_are_beside_it(
    kind: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    def trained(runs: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        draws = [torch.randn(20, *shape, generator=generator)[-runs:] for shape in ((5, 7), (13,), ()) * 6]
        params = [padded(x).requires_grad_() for x in draws[:3]]
        make: Any = kind
        optimizer = make(params, foreach=True, **options)
        fuse(optimizer)
        assert optimizer.param_groups[0]["fused"]
        for step in range(1, 6):
            for param, grad in zip(params, draws[3 * step :], strict=False):
                param.grad = grad
            versions = [param._version for param in params]
            make_step(optimizer)
            assert all(param._version > before for param, before in zip(params, versions, strict=True))
            if step == 3:
                # As a checkpoint is loaded: tensors lie as they come.
                held = [{key: x.clone() for key, x in state_of(optimizer, p).items()} for p in params]
                for param, state in zip(params, held, strict=True):
                    optimizer.state[param] = state
        return [x[-1] for param in params for x in (param, *state_of(optimizer, param).values()) if x.dim()]

    alone = trained(1)
    for runs in (2, 3, 7, 20):
        assert all(map(torch.equal, alone, trained(runs)))


def test_what_is_laid_out_otherwise_is_not_fused() -> None:
    for param in (torch.ones(3), padded(torch.ones(3, dtype=torch.complex64)), torch.ones(4, 16).mT):
        optimizer = torch.optim.SGD([param.requires_grad_()], lr=0.1, foreach=True)
        fuse(optimizer)
        param.grad = torch.ones_like(param)
        make_step(optimizer)
        assert not optimizer.param_groups[0]["fused"]
        assert torch.allclose(param, torch.full_like(param, 0.9))


def test_a_gradient_is_not_held_after_its_update() -> None:
    param = padded(torch.ones(2, 16)).requires_grad_()
    optimizer = torch.optim.AdamW([param], foreach=True)
    fuse(optimizer)
    param.grad = torch.ones_like(param)
    held = weakref.ref(param.grad)
    make_step(optimizer)
    param.grad = None
    assert optimizer.param_groups[0]["fused"] and held() is None
