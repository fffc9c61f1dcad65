"""Reduced twins of the bars of the HMM."""

import hmm_trials
import pytest
from hmm_simulate import simulate

from dynalab.analysis.hmm.summary import ROWS_A_FEATURE


# One of every kind; the bar of scripts/verify tries 200, with more states.
@pytest.mark.parametrize("number", range(len(hmm_trials.KINDS)))
def test_hostile_input_ends_in_a_result_or_one_line(number):
    assert hmm_trials.hostile(number, max_states=3) in ("result", "refused")


def test_states_are_taken_for_one_below_the_limit_of_rows_alone():
    for number in (0, 1):
        rows, n_states, found = hmm_trials.few_rows(number, ROWS_A_FEATURE, 16, max_states=4)
        assert rows >= ROWS_A_FEATURE and 1 < found <= n_states
        rows, _, found = hmm_trials.few_rows(number, 2, 4, max_states=2)
        assert rows < ROWS_A_FEATURE and found == 1


@pytest.mark.parametrize("number", [47, 74])
def test_a_jump_is_found_and_a_phase_is_called_none(number):
    there, none = (hmm_trials.jumping(number, jumps) for jumps in (True, False))
    assert there.found and not there.wrong and none.said == 0 and none.n_states > 1


def test_the_robust_preset_explains_unseen_runs_no_worse_than_the_published_one():
    truth = simulate("ar", 3, n_runs=10, n_rows=80, seed=2)
    robust, paper = hmm_trials.presets(truth.trajectories, max_states=3, restarts=2, workers=1)
    assert robust > paper
