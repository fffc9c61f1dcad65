"""Thresholds of stability: closed forms, and torch's own optimizers on one-dimensional quadratics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynalab.config import registry
from dynalab.curvature.thresholds import (
    Recurrence,
    ascended_threshold,
    inner_of,
    is_adaptive,
    radius,
    recurrence,
    threshold,
)
from dynalab.optim.ascent import ascended
from dynalab.optim.ascent import radius as ball

RATE = 0.01
FORMS: list[tuple[Recurrence, float]] = [
    (Recurrence(RATE), 2 / RATE),
    (Recurrence(RATE, coupled=1.0), 2 / RATE - 1),
    (Recurrence(RATE, 0.9), 3.8 / RATE),
    (Recurrence(RATE, 0.9, coupled=3.0), 3.8 / RATE - 3),
    (Recurrence(RATE, 0.9, 0.1), 38 / RATE),
    (Recurrence(RATE, 0.8, 0.5), 3.6 / 0.5 / RATE),
    (Recurrence(RATE, 0.9, nesterov=True), 3.8 / 2.8 / RATE),
    (Recurrence(RATE, 0.9, 0.1, decoupled=1.0), 38 / RATE * (1 - RATE / 2)),
    (Recurrence(RATE, k=5, alpha=0.5), (1 + 3 ** (1 / 5)) / RATE),
    (Recurrence(RATE, k=5, alpha=0.8), (1 + 1.5 ** (1 / 5)) / RATE),
    (Recurrence(RATE, k=6, alpha=0.5), 2 / RATE),
    (Recurrence(RATE, k=1, alpha=0.01), 200 / RATE),
]


@pytest.mark.parametrize(("found", "form"), FORMS)
def test_closed_forms(found, form):
    assert threshold(found) == pytest.approx(form, rel=1e-6)


def test_the_inner_state_of_lookahead_moves_the_edge():
    """Published nowhere; the numbers were found by simulation."""
    ratios = {
        (k, state): threshold(Recurrence(RATE, 0.9, k=k, alpha=0.5, inner_state=state)) / (3.8 / RATE)
        for k in (5, 6)
        for state in ("keep", "reset")
    }
    wanted = {(5, "keep"): 0.68, (5, "reset"): 0.77, (6, "keep"): 0.80, (6, "reset"): 0.64}
    assert ratios == pytest.approx(wanted, abs=0.006)


# A second moment that moves no more: this much of the old one, after so many steps that corrections are over.
STILL, LATE = 1 - 2.0**-53, 1e18


def freeze(optimizer: torch.optim.Optimizer, name: str, param: torch.Tensor) -> None:
    """Give an adaptive optimizer a second moment of 1."""
    state = getattr(optimizer, "inner", optimizer).state[param]
    ones, zeros = torch.ones_like(param), torch.zeros_like(param)
    if name == "rmsprop":
        state.update(step=torch.tensor(0.0), square_avg=ones, momentum_buffer=zeros)
    else:
        state.update(step=torch.tensor(LATE), exp_avg=zeros, exp_avg_sq=ones, max_exp_avg_sq=ones.clone())


ADAM = {"eps": 0.0, "betas": [0.9, STILL]}
OPTIMIZERS: dict[str, dict] = {
    "sgd": {},
    "sgd_decay": {"name": "sgd", "weight_decay": 5.0},
    "momentum": {"name": "sgd", "momentum": 0.9},
    "dampening": {"name": "sgd", "momentum": 0.9, "dampening": 0.6},
    "dampening_alone": {"name": "sgd", "dampening": 0.6},
    "nesterov": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    "nesterov_decay": {"name": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 5.0},
    "adam": ADAM,
    "adam_no_momentum": {**ADAM, "name": "adam", "betas": [0.0, STILL]},
    "amsgrad": {**ADAM, "name": "adam", "amsgrad": True},
    "adamw": {**ADAM, "weight_decay": 20.0},
    "rmsprop": {"eps": 0.0, "alpha": STILL},
    "rmsprop_momentum": {"name": "rmsprop", "eps": 0.0, "alpha": STILL, "momentum": 0.9},
    "lookahead_odd": {"name": "lookahead", "inner": "sgd", "k": 5, "alpha": 0.5},
    "lookahead_even": {"name": "lookahead", "inner": "sgd", "k": 4, "alpha": 0.7},
    "lookahead_decay": {"name": "lookahead", "inner": "sgd", "k": 3, "alpha": 0.7, "weight_decay": 5.0},
    **{
        f"lookahead_{state}_{k}": {
            "name": "lookahead",
            "inner": "sgd",
            "k": k,
            "alpha": 0.5,
            "momentum": 0.9,
            "inner_state": state,
        }
        for state in ("keep", "reset", "pullback")
        for k in (5, 6)
    },
    "lookahead_adamw": {**ADAM, "name": "lookahead", "inner": "adamw", "k": 5, "weight_decay": 10.0},
    "lookahead_rmsprop": {
        "name": "lookahead",
        "inner": "rmsprop",
        "k": 5,
        "eps": 0.0,
        "momentum": 0.5,
        "inner_alpha": STILL,
    },
    "lookahead_adam": {**ADAM, "name": "lookahead", "inner": "adam", "k": 4, "alpha": 0.3},
}


def growth(case: str) -> tuple[float, float]:
    """Run an optimizer a thousandth below and above its threshold; return by how much late motion grew in each."""
    fields = {"name": case, **OPTIMIZERS[case]}
    part = registry.find("optimizer", fields["name"])
    config = part.config_class(lr=RATE, **fields)
    found = recurrence(config)
    assert found is not None
    limit = threshold(found)
    lambdas = limit * torch.tensor([[0.999, 1.001]], dtype=torch.float64)
    param = torch.full((1, 2), 1e-12, dtype=torch.float64, requires_grad=True)
    optimizer = part.build(config, [param])
    if is_adaptive(config):
        freeze(optimizer, inner_of(config).name, param)
    sizes = []
    # A thousandth of a growth a step shows after some hundred; more is only for the transient to die out.
    for _ in range(30):
        largest = torch.zeros(2, dtype=torch.float64)
        for _ in range(60):
            param.grad = (lambdas * param).detach()
            optimizer.step()
            largest = torch.maximum(largest, param.detach().abs()[0])
        sizes.append(largest)
        if largest.max() > 1e-3:
            break
    below, above = (sizes[-1] / sizes[len(sizes) // 2]).tolist()
    return below, above


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_it_is_where_torchs_own_optimizer_begins_to_grow(case):
    """A thousandth below the threshold the weight shrinks, a thousandth above it grows."""
    below, above = growth(case)
    assert below < 1 < above


def test_adam_begun_anew_in_every_cycle_has_its_corrections_in_the_threshold():
    """Lookahead with `reset` clears the count too: simulated with the second moment held at 1."""
    part = registry.find("optimizer", "lookahead")
    config = part.config_class(lr=RATE, inner="adam", k=4, inner_state="reset")
    limit = threshold(recurrence(config))
    x = phi = np.ones(2)
    lambdas = limit * np.array([0.999, 1.001])
    for _ in range(4000):
        m = np.zeros(2)
        for step in range(1, 5):
            m = 0.9 * m + 0.1 * lambdas * x
            x = x - RATE * m / (1 - 0.9**step)
        x = phi = phi + 0.5 * (x - phi)
    assert abs(x[0]) < 0.1 < 10 < abs(x[1])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sams_edge_at_a_held_gradient_norm(momentum):
    """A second coordinate without curvature to speak of keeps the norm of the gradient at g."""
    part = registry.find("optimizer", "sam")
    config = part.config_class(lr=RATE, momentum=momentum, rho=0.05)
    norm = 0.7
    descent = threshold(recurrence(config))
    limit = ascended_threshold(descent, config.rho, np.array([norm]))[0]
    if not momentum:
        closed = norm / (2 * 0.05) * (np.sqrt(1 + 8 * 0.05 / (RATE * norm)) - 1)
        assert limit == pytest.approx(closed, rel=1e-9)
    lambdas = limit * torch.tensor([[0.999], [1.001]], dtype=torch.float64)
    param = torch.full((2, 1), 1e-9, dtype=torch.float64, requires_grad=True)
    slope = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    optimizer = part.build(config, [param, slope])
    assert ball(optimizer) == 0.05
    for _ in range(4000):
        first = (lambdas * param).detach(), torch.full_like(slope, norm)
        up = ascended({"x": param, "s": slope}, first, ball(optimizer))
        param.grad, slope.grad = lambdas * up["x"], torch.full_like(slope, norm)
        optimizer.step()
        if param.abs().max() > 1e-3:
            break
    assert param[0].abs() < 1e-9 < 1e-7 < param[1].abs()


def test_fields_of_a_stored_configuration_serve_as_well():
    for name in ("sgd", "adam", "adamw", "rmsprop", "sam"):
        config = registry.find("optimizer", name).config_class(lr=0.3)
        stored = {key: getattr(config, key) for key in vars(config)}
        assert recurrence(stored, 0.5) == recurrence(config, 0.5)
    config = registry.find("optimizer", "lookahead").config_class(inner="adam", lr=0.3, k=7)
    stored = {key: getattr(config, key) for key in vars(config)}
    assert recurrence(stored) == recurrence(config) and is_adaptive(stored)
    assert recurrence({"name": "of a plug-in", "lr": 1.0}) is None


def test_schedules_scale_it_and_a_rate_of_zero_has_none():
    config = registry.find("optimizer", "sgd").config_class(lr=0.1)
    assert threshold(recurrence(config, 0.25)) == pytest.approx(80)
    assert threshold(recurrence(config, 0.0)) == np.inf
    assert radius(Recurrence(0.1), np.array([10.0, 30.0])) == pytest.approx([0.0, 2.0])
