"""What of a card is made on the host behind its back: here the device is the host, so that bits can be compared."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dynalab.config.command import read_command
from dynalab.core.streams import Streams
from dynalab.probes import spectra
from dynalab.store import series
from dynalab.store.paths import OutputPaths
from dynalab.tasks.ahead import Ahead
from dynalab.training import host
from dynalab.training.host import Host, Late
from dynalab.training.loop import Loop
from dynalab.training.recorder import Recorder

WORDS = ["task=parity", "task.n=6", "model.hidden=[4]", "train.batch_size=8", "eval.every=2", "eval.size=16"]


def _recorded(folder, runs: int, finisher: Host | None) -> np.ndarray:
    (request,) = read_command(WORDS).requests
    loop = Loop(request.config, [Streams.from_seed(s) for s in range(runs)], 100, torch.device("cpu"))
    loop.measuring.host = finisher
    paths = OutputPaths(folder).ensemble("parity", "x", "0123456789").shard("shard-0-1-2")
    paths.series_folder.mkdir(parents=True)
    recorder = Recorder(paths, runs, {})
    for step in range(7):
        if step:
            loop.update()
        for name, row in loop.measuring.rows().items():
            recorder.add(name, step, row)
        if step == 4:
            recorder.flush(loop.settle())
    recorder.flush(loop.settle())
    recorder.close()
    return series.read(paths.series("every-2"))


def test_promised_rows_have_the_bits_of_those_that_were_waited_for(tmp_path, monkeypatch):
    # On a card no code knows the weights themselves.
    monkeypatch.setattr(spectra, "statistics", lambda *_: None)
    there, here = (_recorded(tmp_path / name, 5, made) for name, made in (("a", Host()), ("b", None)))
    assert there.dtype == here.dtype and len(here) == 4
    for name in set(here.dtype.names) - {"wall"}:
        np.testing.assert_array_equal(there[name], here[name], err_msg=name)


def test_what_goes_wrong_on_the_host_is_raised_where_its_row_is_written(tmp_path):
    def finish(prepared):
        raise FloatingPointError("no row")

    paths = OutputPaths(tmp_path).ensemble("parity", "x", "0123456789").shard("shard-0-1-2")
    paths.series_folder.mkdir(parents=True)
    recorder, finisher = Recorder(paths, 2, {}), Host()
    # More parts than there is room for: each that ends, well or not, makes some.
    for step in range(3 * host._WAITING * finisher.threads):
        recorder.add("every-1", step, finisher.finish(finish, {"x": torch.zeros(2)}, ["a", "b"]))
    # As training does once it has failed: rows are kept then, but none with blanks in the place of these.
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="no row"):
            recorder.flush(torch.full((2,), -1))


def test_a_look_at_a_card_shows_what_was_there_at_the_look_before(monkeypatch):
    arrivals: list[str] = []
    monkeypatch.setattr(host, "_arrival", lambda device: lambda: arrivals.append(device.type))
    with FakeTensorMode():
        late = Late()
        assert late.look(torch.zeros(3, device="cuda")) is None and not arrivals
        seen = late.look(torch.zeros(4, device="cuda"))
        assert seen is not None and (seen.shape, seen.device.type, arrivals) == ((3,), "cpu", ["cuda"])
    here = torch.ones(2)
    assert late.look(here) is here


@pytest.mark.parametrize("ahead", [False, True])
def test_the_next_block_is_drawn_while_one_is_used_and_no_other(ahead):
    drawn: list[int] = []

    def draw(number):
        drawn.append(number)
        return [torch.full((2,), number)]

    blocks = Ahead(draw, torch.device("cpu"), lambda tensors: [2 * tensor for tensor in tensors])
    pool = ThreadPoolExecutor(1) if ahead else None
    blocks._pool = pool
    # Training goes on from a checkpoint, backwards or forwards.
    for number in (0, 0, 1, 2, 2, 7, 3):
        assert blocks.block(number)[0].tolist() == [2 * number] * 2
    if pool is not None:
        pool.shutdown()
    assert sorted(drawn) == ([0, 1, 2, 3, 3, 4, 7, 8] if ahead else [0, 1, 2, 3, 7])


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_bits_that_a_card_unpacks_are_those_of_the_host(noise):
    words = ["task=parity", "task.n=13", "task.k=3", f"task.label_noise={noise}", "train.batch_size=3"]
    (request,) = read_command(words).requests
    device, streams = torch.device("cpu"), [Streams.from_seed(seed) for seed in range(2)]
    data = Loop(request.config, streams, 10, device).data
    wanted = [data.train_batch(step) for step in range(300)]
    data._packed = Ahead(data._draw_packed, device, data._unpacked)
    for step, batch in enumerate(wanted):
        packed = data.train_batch(step)
        assert packed.inputs.dtype == batch.inputs.dtype and packed.targets.dtype == batch.targets.dtype
        assert torch.equal(packed.inputs, batch.inputs) and torch.equal(packed.targets, batch.targets)
