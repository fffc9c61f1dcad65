"""Reading a store the blunt way, for comparing what two roads left behind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def bits(ensemble: Path, step: int | None = None) -> dict[str, dict[str, Any]]:
    """Return label -> everything that bit equality means: series without `wall`, weights of the last checkpoint.

    Args:
        ensemble: The ensemble's folder.
        step: Compare only rows up to this step, and no weights.
    """
    found: dict[str, dict[str, Any]] = {}
    for shard in sorted(ensemble.glob("shard-*")):
        record = json.loads((shard / "run.json").read_text())
        for index, run in enumerate(record["runs"]):
            own: dict[str, Any] = {}
            for path in sorted((shard / "series").glob("*.npy")):
                rows = np.load(path)
                if step is not None:
                    rows = rows[rows["step"] <= step]
                names = list(rows.dtype.names[2:])
                if rows.dtype[names[0]].shape == ():
                    # Each row is of a single run; one that has none is as if there were no series.
                    rows = rows[rows[names.pop(0)] == index]
                    if not len(rows):
                        continue
                own[f"{path.stem}/step"] = rows["step"].tobytes()
                for name in names:
                    values = rows[name] if rows[name].ndim == 1 else rows[name][:, index]
                    own[f"{path.stem}/{name}"] = np.ascontiguousarray(values).tobytes()
            if step is None:
                last = max((shard / "checkpoints").glob("step-*[0-9]"))
                own["last"] = last.name
                for name, tensor in load_file(last / "model.safetensors").items():
                    own[f"weights/{name}"] = tensor[index].tobytes()
            found[run["label"]] = own
    return found


def only_ensemble(outputs: Path) -> Path:
    (config,) = outputs.glob("*/*/config.yaml")
    return config.parent


def difference(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of what differs between two runs' bits."""
    return [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]


def assert_same(one: dict[str, Any], other: dict[str, Any], labels: Iterable[str]) -> None:
    """Fail with the names of what differs, run by run."""
    found = {label: difference(one[label], other[label]) for label in labels}
    assert not {label: names for label, names in found.items() if names}


def trained_in_pieces(words: list[str], folder: Path, monkeypatch: Any) -> tuple[Any, Any]:
    """Return the bits of a training, and those of one that was cut off at step 18 and went on."""
    import pytest

    import dynalab
    from dynalab.core.errors import RunsFailed
    from dynalab.training import session
    from dynalab.training.loop import Loop

    dynalab.train(words, outputs=folder / "whole")

    class Stopped(Loop):
        def advance(self, end: int) -> None:
            if self.step == 18:
                raise OSError("the power is gone")
            super().advance(min(end, 18))

    with monkeypatch.context() as patched:
        patched.setattr(session, "Loop", Stopped)
        with pytest.raises(RunsFailed, match="the power is gone"):
            dynalab.train(words, outputs=folder / "pieces")
    dynalab.train(words, outputs=folder / "pieces")
    return bits(only_ensemble(folder / "whole")), bits(only_ensemble(folder / "pieces"))
