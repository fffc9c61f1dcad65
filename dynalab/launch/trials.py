"""When the planner's trials are made, and where their results are kept: `$XDG_CACHE_HOME/dynalab`.

A result is kept for the machine, the versions and what decides the cost of a step; the file may be deleted at any
time. A trial that cannot be made, or a file that cannot be read or written, costs nothing but the plan's finer points.
`trials.json` has times of steps, `exactness.json` whether bits hold, `sizes.json` bytes of networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from dynalab.config.command import Command, Request
from dynalab.config.places import cache_folder
from dynalab.config.schema import Compute
from dynalab.core.atomic import write_json
from dynalab.core.devices import resolve_device
from dynalab.core.errors import StoreError
from dynalab.core.machine import cards, cores, free_memory
from dynalab.launch.base import Launcher, launcher
from dynalab.launch.layout import Layout
from dynalab.networks.compiler import planned
from dynalab.store.read import read_json
from dynalab.training.planner import (
    ADDRESS,
    DRAWN,
    HOLD,
    RUN_BY_RUN,
    Plan,
    Trial,
    are_by_torch,
    is_short,
    plan,
    to_try,
    with_bits,
)
from dynalab.training.provenance import bits_of

MOST_KEPT = 500
TIMES, EXACTNESS, SIZES = "trials.json", "exactness.json", "sizes.json"
Form = TypeVar("Form")


def _code(compute: Compute) -> list[str]:
    """Return what a result's key says of compiled updates: nothing where torch makes them."""
    return ["compiled"] if compute.compile else []


def path(name: str) -> Path:
    """Return a file of results."""
    return cache_folder() / name


class Plans:
    """The plans of a command's ensembles."""

    def __init__(self, command: Command) -> None:
        self.command = command
        chosen = launcher(command.settings.launcher)
        self.apart, self.elsewhere = chosen.apart, chosen.elsewhere
        self._launcher: Launcher | None = None
        self._device = self.asked
        if self.asked == "auto" and not self.elsewhere:
            # Until somebody who has torch is asked: what was tried before is known under the device's own name.
            self._device = resolve_device("auto", len(cards()))
        self._found: dict[tuple[str, int], Plan] = {}
        self._bits: dict[str, str | None] = {}

    def ask(self, launcher: Launcher) -> None:
        """From now on, have what the file does not know tried.

        Raises:
            DynalabError: The device is absent, or nothing can be trained at all.
        """
        self._launcher = launcher
        self._device = launcher.device(self.asked)
        self._found.clear()

    @property
    def asked(self) -> str:
        """What `device=` asks for."""
        return self.command.settings.device

    @property
    def promises_bits(self) -> bool:
        """Whether a seed's bits are to be its own: on a card the promise is closeness."""
        return self.command.settings.compute.exact and not self._device.startswith("cuda")

    def of(self, request: Request, n_new: int) -> Plan:
        """Return the plan of so many new runs of an ensemble."""
        key = (request.config.id, n_new)
        if key not in self._found:
            self._found[key] = self._laid_out(request, n_new)
        return self._found[key]

    def survey(self, layouts: Sequence[Layout], tell: Callable[[str], None]) -> None:
        """Have measured beforehand what cannot be tried while plans are made; here all can.

        Raises:
            DynalabError: It cannot be asked for.
        """

    def _laid_out(self, request: Request, n_new: int) -> Plan:
        shared_by = len(self.command.requests)
        trial = self._timed(request, n_new) if self.apart else None
        laid = self._plan(request, n_new, trial, free_memory() if trial else None)
        return with_bits(laid, self._exactness(request, laid), shared_by)

    def _plan(
        self, request: Request, n_new: int, trial: Trial | None = None, memory: int | None = None
    ) -> Plan:
        shared_by = len(self.command.requests)
        n_cards = self._launcher.cards if self._launcher and self._device == "cuda" else 1
        compute = self._compute(request)
        return plan(n_new, compute, self._device, shared_by, trial, memory, cards=n_cards)

    def _compute(self, request: Request) -> Compute:
        """Return how an ensemble's work is laid out; whether updates are compiled is said."""
        compute = self.command.settings.compute
        return replace(compute, compile=planned(compute.compile, request.config, self._device))

    def largest(self, layouts: Sequence[Layout]) -> Plan:
        """Return the plan of the ensemble with most new runs, which speaks for the command."""
        layout = max(layouts, key=lambda item: len(item.new))
        return self.of(layout.request, len(layout.new))

    def size(self, request: Request) -> int | None:
        """Return the bytes of one run's weights: from the file, else tried; None where it is not known."""
        key = self.key_of(request, [])
        known = kept(SIZES).get(key)
        if isinstance(known, int) or self._launcher is None:
            return known if isinstance(known, int) else None
        if (found := self._try(request, "size")) is not None:
            keep(SIZES, key, found)
        return found

    def _timed(self, request: Request, n_new: int) -> Trial | None:
        """Return what is known of a request's layouts: from the file, else from a trial in the pool."""
        compute, shared_by = self._compute(request), len(self.command.requests)
        layouts = to_try(n_new, compute, self._device, shared_by)
        if not layouts:
            return None
        run_steps = self._run_steps(request, self._plan(request, n_new))
        on_card = self._device.startswith("cuda")
        # On a card it is for the memory, of rows as well.
        where = [self._device, *(cards() + self.computed(request) if on_card else [])]
        made = [*_code(compute), *["several threads by torch"] * are_by_torch(layouts)]
        key = self.key_of(request, [cores(), *where, compute.exact, layouts, *made])
        known = _trial(kept(TIMES).get(key))
        if known and on_card and self._launcher is not None:
            # What is free is asked each time.
            free = (self._launcher.trial("room", device=self._device) or {}).get("found")
            known = replace(known, free_bytes=free or known.free_bytes)
        if known and (
            len(known.timings) == len(layouts) or is_short(known.timings[0].seconds, run_steps, len(layouts))
        ):
            return known
        if self._launcher is None:
            return known
        answer = self._try(
            request,
            "trial",
            layouts=layouts,
            run_steps=run_steps,
            device=self._device,
            exact=compute.exact,
            compile=self.command.settings.compute.compile,
        )
        found = _trial(answer)
        if found is not None:
            keep(TIMES, key, answer)
        return found

    def _exactness(self, request: Request, laid: Plan) -> str | None:
        """Return whether bits hold by a plan: from the file, else tried; None where it is not promised or not known."""
        compute = self._compute(request)
        if not self.promises_bits or not laid.widths:
            return None
        width = max(laid.widths)
        key = self.key_of(request, [width, *self.computed(request), *_code(compute)])
        if key not in self._bits:
            known = kept(EXACTNESS).get(key)
            if known in (HOLD, RUN_BY_RUN, ADDRESS, DRAWN):
                self._bits[key] = known
            elif self._launcher is None:
                return None
            else:
                run_steps = self._run_steps(request, laid)
                code = self.command.settings.compute.compile
                found = self._try(request, "exactness", width=width, run_steps=run_steps, compile=code)
                self._bits[key] = found
                if found is not None:
                    keep(EXACTNESS, key, found)
        return self._bits[key]

    @staticmethod
    def computed(request: Request) -> list[Any]:
        """Return all that is computed of an ensemble; when, and for how long, is of no account."""
        config = request.config.as_dict()
        parts = [config.get("train") or {}, config.get("eval") or {}, *(config.get("probe") or {}).values()]
        when = ("steps", "epochs", "halve_at", "every", "at")
        return [{name: part[name] for name in part if name not in when} for part in parts]

    def _try(self, request: Request, task: str, **keys: Any) -> Any:
        """Return what a trial of a request finds, None where it could not be made."""
        assert self._launcher is not None
        folders = self.command.settings.folders
        answer = self._launcher.trial(task, config=request.config.as_dict(), folders=folders, **keys)
        return (answer or {}).get("found")

    def _run_steps(self, request: Request, laid: Plan) -> float:
        """Return the updates of single runs that each worker will make."""
        shared_by = len(self.command.requests)
        workers = min(laid.workers, max(len(laid.widths) * shared_by, 1))
        return request.steps * sum(laid.widths) * shared_by / workers

    def _machine(self) -> Any:
        """Return what is known of where it is tried."""
        return bits_of(self.apart)

    def key_of(self, request: Request, more: Sequence[Any]) -> str:
        """Name what decides the outcome of a trial: machine, versions and network; a learning rate does not."""
        config = request.config.as_dict()
        train = config.get("train") or {}
        described = [
            self._machine(),
            {part: config.get(part) for part in ("task", "model")},
            {name: train.get(name) for name in ("batch_size", "accumulate", "loss_dtype")},
            (config.get("optimizer") or {}).get("name"),
            dict(request.config.sources),
            *more,
        ]
        return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]


def kept(name: str) -> dict[str, Any]:
    """Return what a file of results has."""
    try:
        found = read_json(path(name))
    except StoreError:
        return {}
    return found if isinstance(found, dict) else {}


def keep(name: str, key: str, answer: Any) -> None:
    """Put a result down in a file, in the place of the oldest where there are many."""
    known = kept(name)
    known.pop(key, None)
    newest = dict(list(known.items())[-MOST_KEPT + 1 :])
    with contextlib.suppress(StoreError, OSError):
        path(name).parent.mkdir(parents=True, exist_ok=True)
        write_json(path(name), {**newest, key: answer})


def _trial(answer: Any) -> Trial | None:
    known = read_as(answer, Trial)
    return known if known and known.timings else None


def read_as(answer: Any, form: type[Form]) -> Form | None:
    """Return a record of what was measured, None where it is none."""
    from msgspec import ValidationError, convert

    try:
        return convert(answer, form) if answer else None
    except ValidationError:
        return None
