"""When the planner's trial is made, and where its results are kept: `$XDG_CACHE_HOME/dynalab/trials.json`.

A result is kept for the machine, the versions and what decides the cost of a step; the file may be deleted at any
time. A trial that cannot be made, or a file that cannot be read or written, costs nothing but the plan's finer points.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.config.command import Command, Request
from dynalab.config.places import cache_folder
from dynalab.config.schema import Compute
from dynalab.errors import StoreError
from dynalab.store.atomic import write_json
from dynalab.store.layout import Layout
from dynalab.store.read import read_json
from dynalab.training.planner import Plan, Timing, Trial, cores, free_memory, is_short, plan, to_try
from dynalab.training.provenance import versions

if TYPE_CHECKING:
    from dynalab.launch.local import Pool

MOST_KEPT = 200


def path() -> Path:
    """Return the file of the results."""
    return cache_folder() / "trials.json"


class Plans:
    """The plans of a command's ensembles.

    Args:
        command: The ensembles and settings.
    """

    def __init__(self, command: Command) -> None:
        self.command = command
        self._pool: Pool | None = None
        self._device = command.settings.device
        self._found: dict[tuple[str, int], Plan] = {}

    def ask(self, pool: Pool, device: str) -> None:
        """From now on, have this pool try what the file does not know.

        Args:
            pool: The workers, one of them ready.
            device: What `device=` means here.
        """
        self._pool, self._device = pool, device
        self._found.clear()

    def of(self, request: Request, n_new: int) -> Plan:
        """Return the plan of so many new runs of an ensemble."""
        key = (request.config.id, n_new)
        if key not in self._found:
            settings, shared_by = self.command.settings, len(self.command.requests)
            trial = None
            if settings.launcher != "inline":
                trial = _tried(
                    self._pool, request, n_new, settings.compute, self._device, shared_by, settings.folders
                )
            self._found[key] = plan(
                n_new, settings.compute, self._device, shared_by, trial, free_memory() if trial else None
            )
        return self._found[key]

    def largest(self, layouts: Sequence[Layout]) -> Plan:
        """Return the plan of the ensemble with most new runs, which speaks for the command."""
        layout = max(layouts, key=lambda item: len(item.new))
        return self.of(layout.request, len(layout.new))


def _tried(
    pool: Pool | None,
    request: Request,
    n_new: int,
    compute: Compute,
    device: str,
    shared_by: int,
    folders: Sequence[Path],
) -> Trial | None:
    """Return what is known of a request's layouts: from the file, else from a trial in the pool."""
    layouts = to_try(n_new, compute, device, shared_by)
    if not layouts:
        return None
    usual = plan(n_new, compute, device, shared_by)
    run_steps = request.steps * n_new * shared_by / min(usual.workers, max(len(usual.widths) * shared_by, 1))
    key = _key(request, layouts, device, compute.exact)
    kept = _kept().get(key)
    known = _trial(kept)
    if known and (
        len(known.timings) == len(layouts) or is_short(known.timings[0].seconds, run_steps, len(layouts))
    ):
        return known
    if pool is None:
        return known
    answer = pool.trial(
        config=request.config.as_dict(),
        layouts=layouts,
        run_steps=run_steps,
        device=device,
        folders=[str(folder) for folder in folders],
        exact=compute.exact,
    )
    found = _trial(answer)
    if found is not None:
        _keep(key, answer)
    return found


def _key(request: Request, layouts: Sequence[tuple[int, int]], device: str, exact: bool) -> str:
    """Name what decides the time of a step; a learning rate does not."""
    config = request.config.as_dict()
    shape = {part: config.get(part) for part in ("task", "model")}
    train = {
        name: (config.get("train") or {}).get(name) for name in ("batch_size", "accumulate", "loss_dtype")
    }
    optimizer = (config.get("optimizer") or {}).get("name")
    machine = [versions(), cores(), device]
    described = [machine, exact, layouts, shape, train, optimizer, dict(request.config.sources)]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _kept() -> dict[str, Any]:
    try:
        found = read_json(path())
    except StoreError:
        return {}
    return found if isinstance(found, dict) else {}


def _keep(key: str, answer: Any) -> None:
    kept = _kept()
    kept.pop(key, None)
    newest = dict(list(kept.items())[-MOST_KEPT + 1 :])
    with contextlib.suppress(StoreError, OSError):
        path().parent.mkdir(parents=True, exist_ok=True)
        write_json(path(), {**newest, key: answer})


def _trial(answer: Mapping[str, Any] | None) -> Trial | None:
    try:
        if not answer or not answer["timings"]:
            return None
        timings = tuple(Timing(int(w), int(t), float(s)) for w, t, s in answer["timings"])
        return Trial(timings, float(answer["run_bytes"]), answer["free_bytes"])
    except (KeyError, TypeError, ValueError):
        return None
