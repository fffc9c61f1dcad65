"""The same loop as a Hydra program, for `--multirun seed=range(20)`: Hydra runs the seeds one after another.

The words of the configuration come in DYNALAB_BENCH_WORDS, a JSON list, since they are overrides themselves.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore

from benches.loop import configuration, note_seed


@dataclass
class Settings:
    """What the program is told."""

    seed: int = 0
    steps: int = 1000
    out: str = "seeds.jsonl"


ConfigStore.instance().store(name="settings", node=Settings)


@hydra.main(version_base=None, config_name="settings", config_path=None)
def main(settings: Settings) -> None:
    """Train one seed."""
    note_seed(Path(settings.out), CONFIG, settings.seed, settings.steps)


if __name__ == "__main__":
    # Before Hydra starts: dynalab composes with it as well, and a process has one Hydra at a time.
    CONFIG = configuration(tuple(json.loads(os.environ["DYNALAB_BENCH_WORDS"])))
    main()
