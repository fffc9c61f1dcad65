"""The plans of jobs of a cluster: by what a trial job measured on its machines, which are not this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from dynalab.config.command import Command, Request
from dynalab.core.errors import DynalabError
from dynalab.launch.base import launcher
from dynalab.launch.layout import Layout
from dynalab.launch.survey import kinds, measure
from dynalab.launch.trials import SIZES, Plans, keep, kept, read_as
from dynalab.store.jobs import slurm
from dynalab.store.paths import OutputPaths
from dynalab.training.jobplan import Survey, layouts_of_jobs, plan_jobs, threads_of_jobs
from dynalab.training.planner import Plan

SURVEYS = "surveys.json"
# What of `launcher.*` does not decide on which machines jobs run, and with what.
_APART = ("time", "account", "qos", "at_once", "warn", "restarts", "wait", "trial")


def plans_of(command: Command) -> Plans:
    """Return the plans of a command's ensembles, for where they are trained."""
    return (JobPlans if launcher(command.settings.launcher).elsewhere else Plans)(command)


class JobPlans(Plans):
    """The plans of a command whose ensembles a cluster's jobs train."""

    @property
    def asked(self) -> str:
        """What `device=` asks for: of jobs that ask for a card that card, and no CPU where it is absent."""
        settings = self.command.settings
        card = settings.slurm.gpus is not None and settings.device == "auto"
        return "cuda" if card else settings.device

    def _laid_out(self, request: Request, n_new: int) -> Plan:
        compute, keys = self.command.settings.compute, self.command.settings.slurm
        known = self._surveyed(request, n_new)
        unmeasured = ""
        if known is None and self._layouts_of_jobs(n_new):
            unmeasured = "not measured on these machines"
            if keys.trial and self._launcher is None:
                unmeasured += ", which a trial job does first"
        return plan_jobs(n_new, compute, self._device, keys.cpus, known, unmeasured)

    def _layouts_of_jobs(self, n_new: int) -> list[tuple[int, int]]:
        settings = self.command.settings
        return layouts_of_jobs(n_new, settings.compute, self._device, settings.slurm.cpus)

    def survey(self, layouts: Sequence[Layout], tell: Callable[[str], None]) -> None:
        """Have a job of the cluster measure what no earlier one did, where a plan would be made by it.

        Raises:
            DynalabError: Jobs are refused, or cannot be submitted.
        """
        settings = self.command.settings
        if not settings.slurm.trial:
            return
        asked: dict[str, tuple[Request, dict[str, Any]]] = {}
        for layout in layouts:
            request, n_new = layout.request, len(layout.new)
            if (tried := self._layouts_of_jobs(n_new)) and self._surveyed(request, n_new) is None:
                work = {
                    "config": request.config.as_dict(),
                    "n_runs": n_new,
                    "compute": asdict(settings.compute),
                    "device": self._device_of_jobs,
                    "cpus": settings.slurm.cpus,
                    "layouts": tried,
                    "run_steps": self._job_steps(request, n_new),
                    "folders": [str(folder.absolute()) for folder in settings.folders],
                }
                asked[self._survey_key(request, n_new)] = (request, work)
        if not asked:
            return
        self._found.clear()
        threads = threads_of_jobs(settings.compute, settings.slurm.cpus)
        works = [work for _, work in asked.values()]
        found = measure(OutputPaths(settings.outputs), settings.slurm, threads, works, tell)
        for (key, (request, _)), answer in zip(asked.items(), found, strict=True):
            if (known := read_as(answer, Survey)) is not None and known.trial.timings:
                keep(SURVEYS, key, {**asdict(known), "kinds": kinds(known.partition)})
                keep(SIZES, self.key_of(request, []), known.size)

    def _surveyed(self, request: Request, n_new: int) -> Survey | None:
        """Return what a trial job measured for so many new runs, None where none did."""
        if not (layouts := self._layouts_of_jobs(n_new)):
            return None
        known = read_as(kept(SURVEYS).get(self._survey_key(request, n_new)), Survey)
        if known is None or not known.trial.timings:
            return None
        return known if known.serves(self._job_steps(request, n_new), len(layouts)) else None

    def _survey_key(self, request: Request, n_new: int) -> str:
        settings = self.command.settings
        asked = {name: value for name, value in asdict(settings.slurm).items() if name not in _APART}
        compute = {
            name: getattr(settings.compute, name) for name in ("workers", "threads", "exact", "compile")
        }
        more = [self._cluster, asked, self._device_of_jobs, compute, n_new]
        return self.key_of(request, [*more, *self.computed(request)])

    def _job_steps(self, request: Request, n_new: int) -> float:
        """Return the updates of single runs that each job will make."""
        return request.steps * n_new / (self.command.settings.compute.workers or 1)

    def _machine(self) -> Any:
        # Its processor is known once a job has measured, and is no part of what is asked for.
        return {**super()._machine(), "cpu": None}

    @property
    def _device_of_jobs(self) -> str:
        return "cuda" if self._device.startswith("cuda") else "cpu"

    @cached_property
    def _cluster(self) -> str:
        """The name of the cluster that jobs are submitted to; empty where Slurm does not tell."""
        try:
            lines = slurm("scontrol", "show", "config").splitlines()
        except DynalabError:
            return ""
        return next((line.partition("=")[2].strip() for line in lines if line.startswith("ClusterName")), "")
