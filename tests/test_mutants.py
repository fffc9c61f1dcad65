"""The changes that `scripts/mutants` makes, and its list: each line is in the source, each test of it in the suite."""

from __future__ import annotations

import ast
import re

import mutant_trials
import mutations
import nearest_tests

SOURCE = '''"""No change of a docstring with words."""
def mean(values: list[int] = [], ddof: int = 1) -> float:
    """Nor of this one here."""
    if not values or len(values) <= ddof:
        raise ValueError(f"only {len(values):.2f} values are there")
    values.sort()
    return min(values) + sum(values) / (len(values) - 1)
'''


def test_each_change_is_of_one_line_and_of_what_can_be_noticed() -> None:
    before = SOURCE.splitlines()
    changed = []
    for mutant in mutations.mutants(SOURCE):
        after = mutant.apply(SOURCE).splitlines()
        places = [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert places == [mutant.line - 1]
        ast.parse(mutant.apply(SOURCE))
        changed.append(after[places[0]].strip())
    assert not {0, 2} & {mutant.line - 1 for mutant in mutations.mutants(SOURCE)}
    for line in (
        "def mean(values: list[int] = [], ddof: int = 2) -> float:",
        "if not values or len(values) < ddof:",
        "if not values and len(values) <= ddof:",
        "if (values) or len(values) <= ddof:",
        "if False:",
        "pass",
        'raise ValueError(f"only {len(values):.3f} values are there")',
        'raise ValueError(f"only {len(values):.2f} values arex there")',
        "return max(values) + sum(values) / (len(values) - 1)",
        "return min(values) - sum(values) / (len(values) - 1)",
        "return min(values) + sum(values) / (len(values) - 0)",
    ):
        assert line in changed


def test_a_sample_is_drawn_by_its_seed() -> None:
    drawn = [mutations.sample({"a.py": SOURCE}, 4, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({mutant.line for _, mutant in drawn[0]}) == 4


def test_the_list_is_kept_up() -> None:
    trials, gone = mutant_trials.listed([])
    assert gone == []
    assert len(trials) >= 33
    for test in {test for trial in trials for test in trial.tests}:
        path, _, name = test.partition("::")
        text = (nearest_tests.ROOT / path).read_text()
        assert not name or re.search(rf"^def {re.escape(name)}\(", text, re.MULTILINE), test


def test_the_tests_of_a_module_begin_with_those_that_import_it() -> None:
    found = nearest_tests.nearest("dynalab/analysis/eos/edge.py")
    assert {"tests/test_eos.py", "tests/test_detector_rules.py"} <= set(found[:4])
    # Those that ask for it by a command come, too, and later.
    assert found.index("tests/test_detectors_cli.py") > found.index("tests/test_eos.py")
