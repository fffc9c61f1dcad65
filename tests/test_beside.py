"""A lone run's probes in a process beside its training: the same values, and nothing lost when it dies."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import Tensor

from dynalab.config.command import read_command
from dynalab.probes.base import ProbeState
from dynalab.training import beside
from dynalab.training.beside import Beside
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["task=parity", "task.n=8", "task.k=2", "model.hidden=[6]", "train.batch_size=4", "eval.every=5"]
WORDS += ["probes=[weights,gradients,parity]", "probe.gradients.every=1", "optimizer.momentum=0.9"]


def make() -> Loop:
    (request,) = read_command(WORDS).requests
    return Loop(request.config, [Streams.from_seed(3)], 40, torch.device("cpu"), exact=False)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def rows(loop: Loop, steps: int) -> list[dict[str, dict[str, Tensor]]]:
    """Rows of all steps, fetched at the end as a recorder does."""
    begun = [loop.begin_rows()]
    for _ in range(steps):
        loop.update()
        begun.append(loop.begin_rows())
    return [{name: row.whole() for name, row in found.items()} for found in begun]


def process_of(loop: Loop) -> int:
    """Where a loop's rows are measured; it lives."""
    assert loop._beside is not None
    number = loop._beside._process
    os.kill(number, 0)
    return number


def same(a: list[dict[str, dict[str, Tensor]]], b: list[dict[str, dict[str, Tensor]]]) -> bool:
    return all(
        one.keys() == two.keys()
        and all(list(one[name]) == list(two[name]) for name in one)
        and all(torch.equal(v.nan_to_num(7), two[n][k].nan_to_num(7)) for n in one for k, v in one[n].items())
        for one, two in zip(a, b, strict=True)
    )


@pytest.mark.usefixtures("two_cores")
def test_values_are_those_that_are_measured_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make()
    apart = rows(loop, 30)
    assert process_of(loop)
    loop.close()
    loop.close()
    monkeypatch.setattr(Beside, "pays", staticmethod(lambda *_: False))
    assert same(apart, rows(make(), 30))


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_hangs_loses_no_row(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "_PATIENCE", 0.3)
    whole, loop = rows(make(), 30), make()
    begun = [loop.begin_rows()]
    for step in range(30):
        if step in (10, 11, 20):
            os.kill(process_of(loop), number)
        loop.update()
        begun.append(loop.begin_rows())
    assert same(whole, [{name: row.whole() for name, row in found.items()} for found in begun])


class Broken:
    needs: frozenset[str] = frozenset()

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        raise ValueError(f"no luck in row {state.step}")


def test_a_probe_that_fails_says_so_where_its_row_is_wanted() -> None:
    params = {"w": torch.ones(1, 2)}
    alone = Beside({"broken": Broken()}, params, None)
    pending = alone.begin(["broken"], ProbeState(step=4, params=params))["broken"]
    with pytest.raises(RuntimeError, match="row 4: ValueError: no luck in row 4"):
        pending.result()


def test_what_looks_at_more_than_weights_and_gradients_stays_with_the_training() -> None:
    (request,) = read_command(["task=digits", "probes=[weights,gradients,numerics,curvature]"]).requests
    loop = Loop(request.config, [Streams.from_seed(0)], 10, torch.device("cpu"))
    fits = {item.name: Beside.fits(item.probe) for item in loop.measurements}
    assert fits == {"weights": True, "gradients": True, "numerics": False, "curvature": False}


def test_it_is_for_one_run_whose_bits_need_not_be_its_own(two_cores: None) -> None:
    cpu = torch.device("cpu")
    assert Beside.pays(1, False, cpu)
    assert not Beside.pays(1, True, cpu)
    assert not Beside.pays(2, False, cpu)
    assert not Beside.pays(1, False, torch.device("cuda"))
