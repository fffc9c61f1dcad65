"""Grokking's task, but whoever trains it meets a fate: Python that runs as data are made and before every update."""

from __future__ import annotations

from pathlib import Path

# `fate` reads `seeds`, of the shard's runs, and `step`, which is None as the data are made.
TASK = """
import ctypes, os, signal, time
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    name: str = "fated"
    modulus: int = 7


def meet(streams, step):
    seeds = [stream.split for stream in streams]
{fate}


def build(config):
    from dynalab.tasks import grokking
    task = grokking.build(grokking.Config(modulus=config.modulus))

    class Data:
        def __init__(self, streams, keys):
            meet(streams, None)
            self.data, self.streams = task.data(streams, **keys), streams

        def train_batch(self, step):
            meet(self.streams, step)
            return self.data.train_batch(step)

        def eval_batches(self, split):
            return self.data.eval_batches(split)

    class Fated:
        spec, loss, metrics = task.spec, task.loss, task.metrics

        def data(self, streams, **keys):
            return Data(streams, keys)

    return Fated()
"""
YAML = """# @package _global_
defaults:
  - _defaults
  - override /model: embedding_mlp
task: {name: fated, modulus: 7}
"""


def write(folder: Path, fate: str) -> list[str]:
    """Write the task with a fate, lines without indentation, and return the words that train it."""
    place = folder / "task"
    place.mkdir(parents=True, exist_ok=True)
    indented = "".join(f"    {line}\n" for line in fate.strip().splitlines())
    (place / "fated.py").write_text(TASK.replace("{fate}\n", indented))
    (place / "fated.yaml").write_text(YAML)
    return ["task=fated", "model.width=8", "--config-dir", str(folder)]
