"""A plug-in of pytest for `mutant_trials`: no test begins once the seconds are spent, one that never ends is killed.

CPU time, with that of processes that were waited for: what a busy machine does to the clock is no result.
"""

from __future__ import annotations

import os
import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the two limits."""
    parser.addoption(
        "--spend", type=float, default=float("inf"), help="seconds of CPU after which no test begins"
    )
    parser.addoption("--each", type=float, default=0.0, help="seconds of CPU at which a test is killed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start the clock of a test."""
    signal.setitimer(signal.ITIMER_PROF, item.config.getoption("--each"))


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Begin no further test where the seconds are spent."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    if sum(os.times()[:4]) > item.config.getoption("--spend"):
        item.session.shouldstop = "the seconds are spent"
