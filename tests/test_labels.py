"""The words of every figure at the widths of a paper's column, a page's half and a page: none overlaps, none is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from collisions import WIDTHS, collisions
from test_notebook import FIGURES

import dynalab
from dynalab.analysis.hmm.features import WEIGHT_METRICS as WEIGHTS

STEPS = np.arange(0, 3001, 20)
LATE = 1 / (1 + np.exp((1500 - STEPS) / 100))[None] * np.linspace(0.9, 1, 20)[:, None]
LONG = [
    "adamw, lr 0.001, weight decay 1",
    "adamw, lr 0.003, weight decay 1",
    "sgd, momentum 0.9, batch size 512",
]
NOISE = np.random.default_rng(0)
STATES = np.stack([np.linspace(1, 0, len(STEPS)), *[np.linspace(0, 0.2, len(STEPS))] * 5], axis=1)
MARKS = {"memorised": 180.0, "generalised": 260.0, "converged": 1400.0, "fork at step 1,500": 1500.0}
EDGES = [
    {"from": a, "to": b, "runs": 19}
    for a, b in ((0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 2), (4, 5), (1, 5))
]

# Calls with words that are long, many, or in one place.
HARD: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "comparison": (
        ({f"{name}, {k}": (STEPS, LATE - 0.001 * k) for k in range(4) for name in LONG},),
        {"metric": "test accuracy", "log_steps": True},
    ),
    "curves": (
        (STEPS, {"train": LATE, "test": LATE - 0.01, "test, averaged": LATE - 0.02}),
        {"marked": MARKS, "title": "accuracy on examples that were held out, of the averaged weights as well"},
    ),
    "effect_rows": (
        (["state 3 against none, in runs that reach state 5", "b"], [1234.0, -5.0], [(100.0, None), (-20.0, 3.0)]),
        {"notes": ["p = 0.012 (Holm), 12 of 20 runs", "no detour"], "found": [True, False]},
    ),
    "events_over_curves": (
        (["s0000: 3 slingshots, every 600 steps, and a spike without a cycle of the norm"] * 3,
         [(STEPS, np.exp(-STEPS / 200.0))] * 3, [(STEPS, 10.0 ** (STEPS / 900.0))] * 3,
         [[(500, 700, "spike_without_norm_cycle"), (900, 950, "slingshot"), (1000, 1100, "inflation")]] * 3),
        {"names": ("training loss", "norm of the last layer"), "marked": [{"onset": 800.0}] * 3},
    ),
    "estimates_in_regions": (
        (["the edge is reached before the loss has fallen by half", "b"], [0.5, 1e5], [(0.2, None), (1.0, 1e6)],
         [(0.4, 1.0), (1e4, None)]),
        {"notes": ["agrees", "not at this scale"], "axes": ["share, n = 20", "correlation, n = 1,000"]},
    ),
    "halved_rate": (
        (["s0000: the sharpness rises to twice the threshold"] * 3,
         [{"step": STEPS, "sharpness": LATE[0] + 1, "threshold": LATE[1], "parent_sharpness": LATE[2]}] * 3, [900] * 3),
        {},
    ),
    "hidden_progress": (
        (STEPS, LATE, {"Fourier coefficient": np.exp(5 * LATE), "separation": np.exp(4.99 * LATE)}),
        {"leaves": 0.55, "level": 4.0, "log_steps": True,
         "marked": {"Fourier coefficient above 4": 1200.0, "accuracy above 0.55": 1500.0}},
    ),
    "landmark_steps": (
        ({f"{name} generalised": np.append(1500 + 30 * np.arange(19.0), np.nan) for name in LONG},),
        {"last": 30_000, "logarithmic": True},
    ),
    "metric_panels": (
        (dict.fromkeys(WEIGHTS, STEPS), dict.fromkeys(WEIGHTS, 10000000.0 * LATE)),
        {"groups": dict(zip(WEIGHTS, ["accuracy", "loss", "norms", "weights", "curvature", "numerics", "other"] * 2,
                            strict=True)), "log_steps": True},
    ),
    "model_selection": (
        ([*range(1, 13)], list(np.linspace(-20, -1, 12)), [0.8] * 12, list(np.linspace(2e6, 1e6, 12)), 12), {},
    ),
    "effect": (
        (["0.0001", "0.0003", "0.001", "0.003", "0.01", "0.03", "0.1", "0.3"],
         [f"weight decay {x}" for x in (1, 0.3, 0.1)], [[1e2 * (1 + k) for k in range(8)]] * 3,
         [[(50.0, None)] * 8] * 3),
        {"key": "optimizer.lr", "axis": "step at which a run generalises", "ratios": True},
    ),
    "ranking": (
        (LONG, [[100.0, 2000.0, None]] * 3, [1500.0] * 3, [(100.0, None)] * 3),
        {"last": 30_000.0, "axis": "step at which a run generalises", "notes": ["12 of 20", "20 of 20", "0 of 20"]},
    ),
    "response": (
        ([0.0, 0.001, 0.002, 0.003, 0.01, 0.03, 0.1], [[100.0, None]] * 7, [150.0] * 7, [(100.0, 30_000.0)] * 7),
        {"key": "optimizer.weight_decay", "axis": "step at which a run generalises", "best": (0.01, 0.03),
         "last": 30_000.0, "band": (90.0, 120.0, 200.0), "beside": "AdamW at its default rate, decay 1"},
    ),
    "similarity_maps": (
        (["s0000: relative to step 0", "mean of 20 runs, relative to step 0"], [STEPS[::10] * 100] * 2,
         [1 - 1e-9 * np.eye(16)] * 2), {"spreads": [False, True]},
    ),
    "spectral_density": (
        (["s0000", "s0001: some more words about this run"], [STEPS[::10]] * 2, [NOISE.dirichlet(np.ones(33), 16)] * 2,
         np.concatenate([-np.geomspace(1e6, 1e-2, 17), np.geomspace(1e-2, 1e6, 17)])), {},
    ),
    "state_profiles": ((NOISE.normal(size=(6, 14)), WEIGHTS), {"unit": "standard deviations from the mean"}),
    "state_raster": (
        ([STEPS] * 30, [np.arange(len(STEPS)) // 20] * 30, [f"init{k}-order{k}-noise{k}" for k in range(30)], 8),
        {"landmarks": {name: np.full(30, step) for name, step in list(MARKS.items())[:3]}},
    ),
    "surface_pictures": (
        (["s0000: loss on the plane of its path", "s0001", "s0002"],
         [(np.linspace(-100, 100, 5), np.linspace(-1e-3, 1e-3, 4))] * 3,
         [np.outer(10.0 ** np.arange(5.0), np.ones(4))] * 3),
        {"axes": ("first direction of the path (72% of its variance)", "second direction of the path (11%)"),
         "unit": "loss on training examples", "logarithmic": True},
    ),
    "training_curves": (
        (STEPS, {"train": np.exp(-9 * LATE), "test": np.exp(-9 * LATE + 0.01)}, {"train": LATE, "test": LATE - 0.01}),
        {"marked": MARKS, "states": (STEPS, STATES), "log_steps": True},
    ),
    "training_map": (
        (6, EDGES, 20), {"captions": ["19 of 20 runs\n38% of rows\nfrom 12,345"] * 6, "runs": [20] * 6},
    ),
    "variance_shares": (
        (["initialisation", "order", "initialisation and order together", "rest"], [0.5, 0.2, 0.1, 0.2],
         [(0.1, 0.9)] * 4),
        {"factors": ["init", "order"], "levels": [np.arange(20) % 5, np.arange(20) // 5],
         "values": 1000.0 * np.arange(20)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_words_do_not_overlap(name: str) -> None:
    words, keys = HARD.get(name, FIGURES[name])
    for width in WIDTHS:
        figure = getattr(dynalab.figures, name)(*words, **keys, size=(width, None))
        assert collisions(figure) == [], width


@pytest.mark.parametrize("maps", [1, 2])
def test_maps_that_are_made_square_have_room_for_their_words(maps: int) -> None:
    steps = np.arange(0, 1001, 20)
    values = 1 - 0.33 * np.exp(-np.minimum.outer(steps, steps) / 100)
    for size in (None, *((width, None) for width in WIDTHS)):
        names, spreads = ["relative to step 0", "spread"][:maps], [False, True]
        figure = dynalab.figures.similarity_maps(
            names, [steps] * maps, [values] * maps, spreads=spreads, size=size
        )
        assert collisions(figure) == [], size


def test_one_canvas_measures_all_words_of_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure without one makes another for every word, a tenth of the time of a page."""

    def made(*about: object) -> None:
        raise AssertionError("a canvas is made to measure a word")

    monkeypatch.setattr("matplotlib.backend_bases._get_renderer", made)
    for name in ("curves", "training_map", "variance_shares"):
        words, keys = HARD[name]
        assert getattr(dynalab.figures, name)(*words, **keys).axes
