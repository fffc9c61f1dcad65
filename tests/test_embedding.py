"""Modes while training: against batch least squares and a plain reference, at every width, through a resume."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from stored import assert_same, trained_in_pieces

from dynalab.config.command import read_command
from dynalab.core.errors import ConfigError
from dynalab.core.modes import decompose
from dynalab.core.online import OnlineModes
from dynalab.launch import inline
from dynalab.training.handover import carry
from dynalab.training.loop import Loop
from dynalab.training.planner import HOLD
from dynalab.training.streams import Streams

DIGITS = ["task=digits", "task.n_train=24", "task.n_test=20", "train.batch_size=10", "eval.every=10"]
BASE = [*DIGITS, "model.hidden=[6]"]
KEYS = [
    "train.modes=2",
    "train.modes_every=2",
    "train.modes_warmup=4",
    "train.modes_window=2",
    "train.modes_share=0.3",
]

pytestmark = pytest.mark.usefixtures("one_thread")


def loop_of(words, seeds=(0, 1, 2), steps=40):
    (request,) = read_command([*words, f"train.steps={steps}"]).requests
    return Loop(request.config, [Streams.from_seed(seed) for seed in seeds], steps, torch.device("cpu"))


def go(loop, to):
    while loop.step < to:
        loop.update()
        loop.rows()
    return loop


def flat(loop, run=None):
    rows = torch.cat([param.detach().unsqueeze(-1).flatten(1) for param in loop.stack.trained.values()], 1)
    return rows.double().numpy() if run is None else rows[run].double().numpy()


def same(one, other):
    return one.detach().contiguous().numpy().tobytes() == other.detach().contiguous().numpy().tobytes()


def fitted(path, modes):
    """Least squares of every weight by its reference, from all rows at once, about their means."""
    of, references = modes.of, modes.references
    x = path[:, references][:, of]
    y, x0 = path, x.mean(0)
    spread = ((x - x0) ** 2).sum(0)
    slope = ((x - x0) * (y - y.mean(0))).sum(0) / np.where(spread > 0, spread, 1)
    return slope, y.mean(0) - slope * x0


def explained(path, modes):
    """The share of the variance that a reconstruction from all rows leaves out, from 1."""
    slope, offset = fitted(path, modes)
    missed = path - (slope * path[:, modes.references][:, modes.of] + offset)
    return 1 - (missed**2).sum() / ((path - path.mean(0)) ** 2).sum()


def test_running_sums_of_runs_are_batch_least_squares():
    rng = np.random.default_rng(0)
    paths = [np.cumsum(rng.normal(size=(30, 40)), 0) * 1e-2 + rng.normal(size=40) * 10 for _ in range(3)]
    online = OnlineModes([30, 10], 3, 8)
    for rows in torch.from_numpy(np.stack(paths)).unbind(1):
        online.take(rows)
        # As through a checkpoint, in the warm-up as well.
        again = OnlineModes([30, 10], 3, 8)
        again.load({name: x.clone() for name, x in online.tensors().items()})
        online = again
    for run, path in enumerate(paths):
        modes = decompose(path[:8], [30, 10], 3, np.random.default_rng(0))
        assert np.array_equal(online.of[run].numpy(), modes.of)
        for mine, batch in zip(online.coefficients(), fitted(path, modes), strict=True):
            np.testing.assert_allclose(mine[run].numpy(), batch, rtol=1e-9, atol=1e-9)
        assert online.r_squared()[run].item() == pytest.approx(explained(path, modes), rel=1e-9)


def test_the_probe_is_batch_least_squares_at_every_width_and_through_a_resume():
    words = [*BASE, "probes=[modes]", "probe.modes.every=3", "probe.modes.warmup=4", "probe.modes.count=2"]
    together, alone = loop_of(words, [4, 5, 6]), loop_of(words, [5])
    path, row, own = [], {}, {}
    together.rows(), alone.rows()
    path.append(flat(together, 1))
    while together.step < 24:
        together.update(), alone.update()
        row, own = together.rows().get("every-3", row), alone.rows().get("every-3", own)
        if together.step % 3 == 0:
            path.append(flat(together, 1))
        if alone.step in (6, 19):
            # Measured again, as where a fork begins, a row counts once.
            again = loop_of(words, [5])
            again.load(alone.step, *({n: x.clone() for n, x in part.items()} for part in alone.tensors(1)))
            alone = again
            if alone.step == 6:
                alone.rows()
    modes = decompose(
        np.stack(path[:4]), [param[0].numel() for param in together.params], 2, np.random.default_rng(0)
    )
    assert row["modes_r_squared"][1].item() == pytest.approx(explained(np.stack(path), modes), rel=1e-9)
    assert row["modes_found"][1] == len(modes.references)
    assert all(same(value[0], row[name][1]) for name, value in own.items())


def test_weights_are_embedded_as_a_plain_reference_has_it():
    """Beside each update of the loop, weights of one run are embedded by a list and batch least squares."""
    loop, run = loop_of([*BASE, *KEYS]), 1
    paths, sizes = [], [param[0].numel() for param in loop.stack.trained.values()]
    modes = frozen = embedded = before = None
    inside, loop.embedding = loop.embedding, None
    for step in range(1, 25):
        loop.update()
        if step % 2:
            inside.take(step, None)
            continue
        own = flat(loop, run)
        paths.append(own.copy())
        inside.take(step, None)
        if len(paths) == 4:
            modes = decompose(np.stack(paths), sizes, 2, np.random.default_rng(0))
            before = frozen = fitted(np.stack(paths), modes)
            embedded = np.zeros(len(own), bool)
        elif len(paths) > 4 and len(paths) % 2 == 0:
            now = fitted(np.stack(paths), modes)
            change = sum((one - other) ** 2 for one, other in zip(now, before, strict=True))
            never = embedded.copy()
            never[modes.references] = True
            free = np.flatnonzero(~never)
            chosen = free[np.argsort(change[free], kind="stable")[: round(0.3 * len(own))]]
            frozen = tuple(np.where(embedded, old, new) for old, new in zip(frozen, now, strict=True))
            before = frozen
            embedded[chosen] = True
        if modes is not None:
            slope, offset = frozen
            made = slope * own[modes.references][modes.of] + offset
            expected = np.where(embedded, made, own)
            np.testing.assert_allclose(flat(loop, run), expected, rtol=1e-5, atol=1e-6)
            assert np.array_equal(flat(loop, run)[~embedded], own[~embedded])
            assert np.array_equal(inside.embedded[run].numpy(), embedded)
    # All but the references, in the end, and each seed has modes of its own.
    assert embedded.sum() == len(embedded) - len(modes.references)
    assert not inside._modes.of[0].equal(inside._modes.of[1])


def test_the_share_that_is_embedded_is_a_column_and_its_memory_is_there_before_training():
    loop = loop_of([*BASE, *KEYS])
    assert loop.embedding._modes._kept.shape == (
        3,
        4,
        flat(loop).shape[1],
    )  # a warm-up of four rows of three runs
    shares = []
    while loop.step < 40:
        loop.update()
        if "every-10" in (rows := loop.rows()):
            own = rows["every-10"]["embedded_share"]
            taken = loop.embedding.embedded
            assert own.tolist() == ([0.0] * 3 if taken is None else taken.double().mean(1).tolist())
            shares.append(own)
    # All but the references, in the end.
    assert torch.stack(shares).diff(dim=0).min() >= 0 and 0.9 < shares[-1].min() <= shares[-1].max() < 1
    assert "embedded_share" not in loop_of(BASE).rows()["every-10"]


@pytest.mark.parametrize("at", [5, 13])
def test_width_and_interruption_do_not_show(at):
    """Cut off in the warm-up, and after some weights were embedded."""
    words = [*BASE, *KEYS]
    together = go(loop_of(words, range(5)), 20)
    early = go(loop_of(words, [1, 4, 3]), at)
    assert all(
        same(x[0], y[1]) for x, y in zip(go(loop_of(words, [1]), 20).params, together.params, strict=True)
    )
    again = loop_of(words, [1, 4, 3])
    again.load(at, *({name: x.clone() for name, x in part.items()} for part in early.tensors(3)))
    go(again, 20)
    for one, other in zip(again.params, together.params, strict=True):
        assert same(one[2], other[3]) and same(one[0], other[1])
    assert again.embedding.embedded[2].equal(together.embedding.embedded[3])
    assert again.embedding.embedded.any()


def test_it_changes_nothing_before_and_a_diverged_run_leaves_its_siblings_alone():
    plain, embedded, poisoned = loop_of(BASE), loop_of([*BASE, *KEYS]), loop_of([*BASE, *KEYS])
    go(plain, 11), go(embedded, 11)
    assert all(same(x, y) for x, y in zip(plain.params, embedded.params, strict=True))
    go(plain, 80), go(embedded, 80)
    assert not all(same(x, y) for x, y in zip(plain.params, embedded.params, strict=True))
    go(poisoned, 5)
    with torch.no_grad():
        poisoned.params[0][1] = torch.inf
    go(poisoned, 80)
    assert poisoned.lost(3) == [1]
    for one, other in zip(embedded.params, poisoned.params, strict=True):
        assert same(one[[0, 2]], other[[0, 2]]) and not other[1].any()
    held = [x for key, x in poisoned.tensors(3)[1].items() if key.startswith("modes/") and x.dim()]
    assert held and all(x.isfinite().all() for x in held)


def test_a_fork_goes_on_with_modes_of_the_same_keys_and_begins_others():
    parent = go(loop_of([*BASE, *KEYS]), 14)
    parts = parent.tensors(3)
    same_keys, other, plain = (
        loop_of([*BASE, *KEYS, "optimizer.lr=1e-3"]),
        loop_of([*BASE, "train.modes=3"]),
        loop_of(BASE),
    )
    for loop in (same_keys, other, plain):
        carry(parent, loop, *copy.deepcopy(parts))
    assert same_keys.embedding.embedded.equal(parent.embedding.embedded)
    assert other.embedding.embedded is None and other.embedding._modes.rows == 0
    before = go(loop_of(BASE), 14)
    later = loop_of([*BASE, *KEYS])
    carry(before, later, *before.tensors(3))
    assert go(later, 30).embedding.embedded.any()


def test_a_training_cut_off_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(inline.Launcher, "trial", lambda self, name, **_: {"bits": HOLD} if name else {})
    words = [*BASE, *KEYS, "train.steps=24", "seed=0..2", "launcher=inline", "checkpoint.every=7"]
    whole, pieces = trained_in_pieces(words, tmp_path, monkeypatch)
    assert_same(whole, pieces, whole)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.modes=0"], "train.modes=0: expected an integer of at least 1"),
        (["train.modes_window=3"], "train.modes_window=3: expected train.modes as well"),
        (["train.modes=2", "train.modes_share=1.5"], "train.modes_share=1.5: expected"),
        (["train.modes=2", "train.modes_warmup=1"], "train.modes_warmup=1: expected"),
        (
            ["train.modes=2", "train.norm_clamp=1"],
            "train.modes=2: expected null, or weights whose norm is not held",
        ),
        (["train.mode=2"], "train.mode: no such key"),
    ],
)
def test_what_cannot_be_is_said(words, said):
    with pytest.raises(ConfigError) as error:
        read_command(words)
    assert said in str(error.value)


def test_slow_weights_are_refused_and_ids_do_not_move():
    with pytest.raises(ConfigError, match=r"train.modes=2: .* legal: every optimizer but lookahead"):
        loop_of([*BASE, "train.modes=2", "optimizer=lookahead"])

    def id_of(*words):
        return read_command(list(words)).requests[0].config.id

    assert id_of("train.modes=null") == id_of() == id_of("train.modes_every=10")
    assert len({id_of(), id_of("train.modes=2"), id_of("train.modes=2", "train.modes_every=5")}) == 3
