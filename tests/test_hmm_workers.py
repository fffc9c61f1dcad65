"""Fits over processes: who does them, what is sent, and several searches side by side."""

import math
import operator
import os
import time
from concurrent.futures import BrokenExecutor, Future
from functools import partial

import numpy as np
import pytest
from joblib.externals import loky

from dynalab.analysis.hmm import compiled, covariances, workers
from dynalab.config import compiling
from dynalab.core.progress import telling


def search(name, waves):
    """Ask for waves of roots, and return what came back."""
    came = []
    for wave in waves:
        came.append((yield workers.Wave(math.sqrt, wave, [1.0] * len(wave))))
    return name, came


def test_searches_go_on_abreast_and_get_their_own():
    told = []
    with telling(lambda *what: told.append(what)):
        found = workers.abreast(
            [search("a", [[1, 4], [9]]), search("b", []), search("c", [[16], [], [25]])], 1
        )
    assert found == [("a", [[1, 2], [3]]), ("b", []), ("c", [[4], [], [5]])]
    # Two together with one, then one with none, then the last: and each wave is told by what it does.
    assert [what for what in told if what[1] == 0] == [("math", 0, 3), ("math", 0, 1), ("math", 0, 1)]


def _slowly_read(name):
    """Each process gets a task, as none is done before the other looks for one."""
    time.sleep(0.1)
    return os.getenv(name)


def test_this_process_fits_beside_the_others(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    who = workers.spread(os.readlink, ["/proc/self"] * 8, [1.0] * 8, 2)
    assert str(os.getpid()) in who and len(set(who)) == 2
    # What is not this process has one thread, whatever is set here.
    threads = workers.spread(_slowly_read, ["OMP_NUM_THREADS"] * 8, [1.0] * 8, 2)
    assert set(threads) == {"7", "1"} and os.environ["OMP_NUM_THREADS"] == "7"


def _library_of(_):
    time.sleep(0.1)
    return os.getpid(), compiled.used()


@pytest.mark.skipif(compiling.compiler() is None, reason="no C++ compiler on this machine")
def test_other_processes_fit_in_the_code_that_this_one_fits_in():
    for made in (compiled.library(), None):
        with compiled.using(made):
            who, used = zip(*workers.spread(_library_of, range(8), [1.0] * 8, 2), strict=True)
        assert len({*who}) == 2 and {*used} == {made}


@pytest.mark.parametrize("tasks", [[4, -1, 9], [-1, 4, 9]])
def test_a_task_that_fails_is_the_callers_error_and_the_next_ones_are_done(tasks):
    # The first is done by another process, the second here.
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        workers.spread(math.sqrt, tasks, [3.0, 2.0, 1.0], 2)
    assert workers.spread(partial(operator.add, 1), [1, 2, 3], [1.0] * 3, 2) == [2, 3, 4]


class AtOnce:
    """A pool that does a task as it is handed out; of so many it takes no more."""

    def __init__(self, most):
        self.most = most

    def submit(self, work, *given):
        if not self.most:
            raise BrokenExecutor
        self.most -= 1
        future = Future()
        try:
            future.set_result(work(*given))
        except ValueError as error:
            future.set_exception(error)
        return future


@pytest.mark.parametrize("most", [1, 2, 9])
def test_what_a_pool_does_not_take_any_more_is_done_here(monkeypatch, most):
    monkeypatch.setattr(loky, "get_reusable_executor", lambda **how: AtOnce(most))
    assert workers.spread(math.sqrt, [1, 4, 9, 16], [1.0] * 4, 2) == [1, 2, 3, 4]


def test_after_one_has_failed_no_other_is_begun(monkeypatch):
    monkeypatch.setattr(loky, "get_reusable_executor", lambda **how: AtOnce(9))
    done = []
    with telling(lambda name, so_far, total: done.append(so_far)), pytest.raises(ValueError):
        workers.spread(math.sqrt, [4, -1, 9, 16], [4.0, 3.0, 2.0, 1.0], 2)
    assert done == [0, 1]


@pytest.mark.parametrize("least", [1e-3, 1e-12])
def test_what_covariances_have_in_common_does_not_hang_on_how_it_is_inverted(least):
    # Far from what is resolved inverses need no eigenvalues, near to it they do.
    rng = np.random.default_rng(1)
    turns = [np.linalg.qr(rng.normal(size=(5, 5)))[0] for _ in range(3)]
    values = np.array([least, 0.1, 1.0, 2.0, 3.0])
    several = np.array([(turn * values) @ turn.T for turn in turns])
    expected = np.linalg.inv(np.mean([(turn / values) @ turn.T for turn in turns], axis=0))
    np.testing.assert_allclose(covariances.common(several), expected, rtol=1e-3, atol=1e-5 * least**0.5)


def test_a_floor_is_only_raised_to_where_an_eigenvalue_is_below_it():
    several = np.array([np.diag([1.0, 2.0]), np.diag([0.5, 4.0])])
    assert covariances.above(several, 0.499) and not covariances.above(several, 0.501)
    assert not covariances.above(several, np.array([0.1, 0.6]))
    raised = covariances.raise_floor(several, 0.6, False)
    np.testing.assert_allclose(raised, [np.diag([1.0, 2.0]), np.diag([0.6, 4.0])])
    np.testing.assert_array_equal(raised[0], several[0])
