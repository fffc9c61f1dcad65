"""A fork that is killed while it leaves its parent: at no moment is it without a whole checkpoint of the step."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from stored import assert_same, bits

import dynalab
from dynalab import train
from dynalab.core import atomic
from dynalab.store.carve import split
from dynalab.store.paths import EnsemblePaths
from dynalab.training.session import Session

STEP = 12
WORDS = ["task=digits", "task.n_train=40", "model=mlp", "model.hidden=[6]", "train.steps=14", "seed=0..1"]
WORDS += ["launcher=inline", "compute.workers=1", "snapshots.at=[0,12]", "eval.every=4", "probes=[gradients]"]
EDIT = ["edit=perturb", "edit.scale=0.3", "launcher=inline"]


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    """What a fork leaves, and its folders as a kill before each renaming of its entrance finds them."""
    place = tmp_path_factory.mktemp("fork")
    (parent,) = train([*WORDS, f"checkpoint.keep=[{STEP}]"], outputs=place / "outputs")
    found: list[Path] = []
    entering = False

    def copied() -> None:
        if entering:
            found.append(place / f"killed-{len(found)}")
            # A lock is its holder's, who is dead.
            shutil.copytree(place / "outputs", found[-1], ignore=shutil.ignore_patterns("lock", "*.lock"))

    def before(call):
        def watched(*words, **keys):
            copied()
            return call(*words, **keys)

        return watched

    def enter(self, segment, went=Session.enter):
        nonlocal entering
        entering = True
        went(self, segment)
        copied()
        entering = False

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Session, "enter", enter)
        patched.setattr(os, "replace", before(os.replace))
        patched.setattr(os, "rename", before(os.rename))
        patched.setattr(atomic, "_exchange", before(atomic._exchange))
        (fork,) = dynalab.fork(parent, STEP, EDIT)
    return parent, fork, found


def everything(ensemble: Path) -> dict:
    runs = bits(ensemble)
    for paths in EnsemblePaths(ensemble).shards():
        steps = list(paths.snapshots())
        for label in runs:
            runs[label].setdefault("snapshots", steps)
    return runs


@pytest.mark.parametrize("parts", [1, 2])
def test_a_fork_that_is_killed_as_it_leaves_its_parent_goes_on_from_there(moments, tmp_path, parts):
    parent, fork, found = moments
    assert len(found) > 8
    expected = everything(fork.path)
    for killed in found:
        outputs = shutil.copytree(killed, tmp_path / killed.name)
        ensemble = outputs / fork.path.relative_to(parent.path.parent.parent)
        if parts > 1:
            (shard,) = EnsemblePaths(ensemble).shards()
            assert len(split(shard, parts)) == parts
        (again,) = dynalab.fork(parent.id, STEP, EDIT, outputs=outputs)
        assert again.path == ensemble and len(again.runs) == 2
        assert_same(everything(ensemble), expected, expected)
        for paths in EnsemblePaths(ensemble).shards():
            log = paths.log.read_text().splitlines()
            assert not [line for line in log if "started" in line or "goes back" in line], (killed, log)
            # Nothing that the entrance made for a moment is left.
            assert not list(paths.series_folder.glob(".*")) and not list(
                paths.checkpoint_folder.glob("*/*.npy")
            )
