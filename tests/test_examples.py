"""`analyze examples`: the parts of the spread against closed forms, brute force and planted shares; what is said."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from groups import of_examples
from nulls.examples import Planted, planted

import dynalab
from dynalab.analysis import examples
from dynalab.analysis.examples import Config, analyse
from dynalab.analysis.examples.shares import spread
from dynalab.core.blocks import BlockRows
from dynalab.core.weights import Learner
from dynalab.errors import NothingMatched, StoreError
from dynalab.show.blocks import Lines, Say, Table


def whole(right: np.ndarray) -> np.ndarray:
    return np.ones_like(right, bool)


def own_sets(right: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Which examples each model was tested on, so many of all, drawn anew for each."""
    held = np.zeros(right.shape, bool)
    for row in held:
        row[rng.permutation(right.shape[1])[:size]] = True
    return held


def test_the_models_part_is_the_mean_covariance_between_halves_of_the_examples():
    right = np.random.default_rng(0).random((5, 6)) < np.linspace(0.2, 0.9, 6)
    covariances = []
    for half in itertools.combinations(range(6), 3):
        rest = [place for place in range(6) if place not in half]
        covariances.append(np.cov(right[:, half].mean(1), right[:, rest].mean(1))[0, 1])
    found = spread(right, whole(right))
    assert found is not None and found.models == pytest.approx(np.mean(covariances), abs=1e-7)
    total, mean = right.mean(1).var(ddof=1), right.var(0, ddof=1).mean()
    assert found.total == pytest.approx(total)
    assert found.total - found.models == pytest.approx((mean - total) / 5, abs=1e-7)


def test_examples_that_two_models_share_are_left_out_of_their_products():
    rng = np.random.default_rng(1)
    right = rng.random((4, 9)) < 0.6
    held = own_sets(right, 6, rng)
    found = spread(right & held, held)
    products = {
        (s, t): np.mean([
            right[s, i] * right[t, j]
            for i, j in itertools.product(np.flatnonzero(held[s]), np.flatnonzero(held[t]))
            if i != j
        ])
        for s, t in itertools.product(range(4), repeat=2)
    }  # fmt: skip
    own = np.mean([products[s, s] for s in range(4)])
    other = np.mean([value for (s, t), value in products.items() if s != t])
    assert found is not None and found.models == pytest.approx(own - other, abs=1e-7)


@pytest.mark.parametrize("size", [None, 150, 60])
def test_the_estimate_has_no_bias_whatever_examples_models_share(size):
    case, rng = Planted(0.3), np.random.default_rng(2)
    own, _ = case.variances(300)
    estimates = []
    for _ in range(500):
        right = case.draw(6, 300, rng)
        held = whole(right) if size is None else own_sets(right, size, rng)
        found = spread(right & held, held)
        assert found is not None
        estimates.append(found.models)
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - own) < 4 * error and error < own / 10


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
def test_planted_shares_are_covered(share):
    case, n = planted(share, 200, matters="half"), 200
    sd = np.sqrt(case.variances(n)[0])
    for n_models, times in ((8, 400), (20, 400)):
        rng = np.random.default_rng([n_models, int(10 * share)])
        shares, deviations = 0, 0
        for _ in range(times):
            right = case.draw(n_models, n, rng)
            found = spread(right, whole(right))
            assert found is not None
            shares += found.interval[0] <= share <= found.interval[1]
            deviations += found.deviation_interval[0] <= sd <= found.deviation_interval[1]
        # 93% of 400, less two standard errors.
        assert min(shares, deviations) >= 0.93 * times - 10


def rows(*accuracies: float, n: int = 50) -> dict[str, np.ndarray]:
    return {f"s{i:04d}": np.arange(n)[None] < n * share for i, share in enumerate(accuracies)}


def test_what_cannot_be_told_says_why():
    def end(*accuracies: float):
        return analyse([of_examples(rows(*accuracies), np.array([10]))], Config()).summary

    assert end(0.5, 0.6, 0.7).reason == "fewer than 4 runs" and end(
        0.5, 0.6, 0.7
    ).accuracy_sd == pytest.approx(0.1)
    assert end(0.5, 0.5, 0.5, 0.5).reason == "the runs have equal accuracy"
    assert end(0.5).accuracy_sd is None and end(0.5).agreement is None
    rng = np.random.default_rng(0)
    same = {f"s{i:04d}": rng.random((1, 400)) < 0.5 for i in range(20)}
    luck = analyse([of_examples(same, np.array([10]))], Config()).summary
    assert luck.interval[0] == 0 and luck.verdict in ("test_set", "cannot_tell")
    apart = analyse([of_examples(rows(*np.linspace(0.1, 0.9, 12)), np.array([10]))], Config())
    assert apart.summary.verdict == "models" and apart.summary.models_share > 0.9
    text = next(block.text for block in examples.show(apart, []) if isinstance(block, Say))
    assert "most of it is the models' own" in text


def test_models_that_differ_less_than_luck_would_have_them_show_little():
    # Each is right on another half of the examples: accuracies are all but equal, errors are not.
    counts = 1000 + np.array([-8, -5, -4, -2, -1, 0, 1, 3, 4, 5, 8])
    right = np.random.default_rng(0).permuted(np.arange(2000) < counts[:, None], axis=1)
    found = spread(right, whole(right))
    assert found is not None and found.is_odd and found.models < 0 and found.share == 0
    # As wide as that of models that differ by as much as luck has it.
    assert found.interval[0] == 0 and 0.5 < found.interval[1] < 0.9 and found.deviation_interval[1] > 0
    group = of_examples({f"s{i:04d}": own[None] for i, own in enumerate(right)}, np.array([10]))
    assert any(
        "differ less than those of equal models" in line for line in analyse([group], Config()).warnings
    )


def test_agreement_churn_and_forgetting_by_hand():
    steps = np.array([0, 10, 20, 30])
    first = np.array([[0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
    second = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1], [0, 1, 1, 1]], bool)
    found = analyse([of_examples({"s0000": first, "s0001": second}, steps)], Config(listed=2))
    one, two = found.runs
    assert (one.churn, one.forgotten, one.never_right, one.never_forgotten) == (1 / 3, 0.5, 0.25, 0.25)
    assert (two.churn, two.forgotten, two.never_right, two.never_forgotten) == (1 / 6, 0.0, 0.25, 0.75)
    last = found.over_training[-1]
    # Both have example 3, neither 0; of 4 examples they have 2 and 3 right.
    assert last.agreement == 0.75 and last.agreement_by_chance == pytest.approx(2 / 4 * 3 / 4 + 2 / 4 * 1 / 4)
    assert [row.churn for row in found.over_training] == [None, 0.25, 0.375, 0.125]
    assert [(item.example, item.right, item.right_at_end) for item in found.hardest] == [
        (0, 0.125, 0.0),
        (1, 0.25, 0.5),
    ]
    assert [item.example for item in found.easiest] == [3, 2] and found.table["forgotten"].tolist() == [
        0.5,
        0,
        0.5,
        0,
    ]


class Drawn(Learner):
    """A run that can say what its examples are."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers

    def examples(self, split: str, most: int | None) -> tuple[np.ndarray, np.ndarray]:
        return self.numbers[:, None], 0 * self.numbers


def test_examples_are_told_apart_by_what_they_are_not_by_their_place():
    numbers = np.array([[5, 6, 7, 7], [7, 5, 8, 6], [5, 6, 7, 7], [9, 10, 11, 12]])
    right = {f"s{i:04d}": own[None] == 5 for i, own in enumerate(numbers)}
    group = of_examples(right, np.array([10]), sets=[1, 2, 1, 3])
    runs = [replace(run, learner=Drawn(own)) for run, own in zip(group.runs, numbers, strict=True)]
    found = analyse([replace(group, runs=tuple(runs))], Config())
    # 5 6 7, another 7, 8, and 9 to 12.
    assert found.examples == 9 and found.common == pytest.approx((3 + 4 + 3) * 2 / 4 / 12)
    best = found.easiest[0]
    assert (best.example, best.run, best.runs, best.right) == (0, "e/s0000", 3, 1.0)
    assert any("hold out different examples" in line for line in found.warnings)
    with pytest.raises(NothingMatched, match="trained elsewhere"):
        analyse([group], Config())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("examples", np.zeros((1, 9), np.uint8)),
        ("examples", np.zeros((1, 7), np.int16)),
        ("examples", np.zeros(1, np.uint8)),
        ("examples_set", np.array([[1.0, np.nan]])),
        ("examples_set", np.array([[1, -50]])),
        ("examples_set", np.array([[1, 50, 3]])),
    ],
)
def test_blocks_that_do_not_fit_each_other_are_damage(name, values):
    group = of_examples(rows(0.5, 0.6), np.array([10]))
    (run, other) = group.runs
    harmed = replace(run, blocks={**run.blocks, name: BlockRows(np.array([10]), values)})
    with pytest.raises(StoreError, match="do not fit each other"):
        analyse([replace(group, runs=(harmed, other))], Config())


def test_after_another_split_only_its_rows_are_read():
    group = of_examples({"s0000": np.eye(3, 8, dtype=bool), "s0001": np.eye(3, 8, dtype=bool)}, np.arange(3))
    other = group.runs[0].blocks["examples_set"]
    moved = replace(other, values=np.array([[9, 8], [1, 8], [1, 8]]))
    run = replace(group.runs[0], blocks={**group.runs[0].blocks, "examples_set": moved})
    found = analyse([replace(group, runs=(run, group.runs[1]))], Config())
    assert [row.runs for row in found.over_training] == [1, 2, 2]
    assert found.warnings[0] == "e/s0000: 1 row left out, of other held-out examples (step 0)"
    assert found.warnings[-1] == (
        "not all of the 2 runs have a row at step 0: what is said of these is of the others"
    )
    nothing = [replace(run, id=f"e/t{i}", blocks={}) for i, run in enumerate(group.runs)]
    moved = [replace(run, id=f"e/s{i}") for i in range(2)]
    found = analyse([replace(group, runs=(*nothing, *moved))], Config())
    assert found.warnings[:2] == (
        "2 of 4 runs: no rows of examples, left out",
        "2 of 4 runs: 2 rows left out, of other held-out examples (step 0)",
    )


def test_steps_that_are_not_shown_or_not_split_are_named():
    rng = np.random.default_rng(0)
    right = {f"s{i:04d}": rng.random((20, 40)) < 0.5 for i in range(5)}
    for own in right.values():
        # Equal accuracy, in two rows.
        own[[0, 7]] = np.arange(40) < 20
    group = of_examples(right, np.arange(0, 200, 10))
    found = analyse([group], Config())
    blocks = [*examples.show(found, [group])]
    (table,) = (item for item in blocks if isinstance(item, Table) and item.caption.startswith("Over"))
    assert len(table.rows) == 12 and table.caption.endswith(", 12 of 20 rows (the stored result has all)")
    (figure,) = (item for item in blocks if isinstance(item, Lines))
    assert figure.caption.endswith(
        "In the upper panel alone, for they are not split: steps 0 and 70 (the runs have equal accuracy)."
    )


def test_digits_of_ones_own_split_from_training_to_the_figure(here, outputs):
    words = [
        "task=digits",
        "task.n_train=60",
        "task.n_test=90",
        "model=mlp",
        "model.hidden=[8]",
        "train.steps=40",
    ]
    words += ["eval.every=10", "seed=0..4", "compute.workers=1"]
    assert here("train", *words, "probes=[weights]").code == 0
    bare = here("analyze", "examples")
    assert bare.code == 4 and "'probes=[weights,gradients,examples]'" in bare.err
    answer = here("train", *words, "probes=[weights,gradients,examples]", "probe.examples.every=20")
    assert answer.code == 0 and "next: dynalab analyze examples" in answer.err
    (entry,) = here("analyze", "examples", "--json").json["analyses"]
    group = dynalab.load("@last").group()
    final = [run.series["test_accuracy"].values[-1] for run in group.runs]
    np.testing.assert_allclose([run["accuracy"] for run in entry["runs"]], final, atol=1e-12)
    # Each run holds out its own 90 of 1,797.
    assert entry["summary"]["step"] == 40 and entry["common"] == pytest.approx(90 / 1797, abs=0.03)
    assert 90 * 5 * 0.8 < entry["examples"] < 450
    result = dynalab.analyze("examples", "@last")
    (figure,) = (block for block in examples.show(result.value, [group]) if isinstance(block, Lines))
    assert len(figure.panels) == 3 and figure.panels[0].curves["test"]["all"].values[-1] == pytest.approx(
        np.mean(final)
    )
