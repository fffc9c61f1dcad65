"""dynalab: a laboratory for the dynamics of neural-network training.

In a notebook:

    import dynalab
    (ensemble,) = dynalab.train(["task=grokking", "seed=0..3"])
    ensemble.array("test_accuracy")          # (S, T)
    result = dynalab.analyze("hmm", ensemble)
    dynalab.view(dynalab.analyze("progress", ensemble))   # words, figures and tables, as the page has them
    dynalab.load("@last").frame()            # pandas, a row a run and step
    dynalab.ensembles_frame("@last")         # pandas, a row a run: landmarks, last metrics, keys that differ
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynalab.core.machine import choose_kernels
from dynalab.core.version import __version__ as __version__

if TYPE_CHECKING:
    from dynalab import figures as figures
    from dynalab.api import analyze as analyze
    from dynalab.api import ensembles_frame as ensembles_frame
    from dynalab.api import fork as fork
    from dynalab.api import import_checkpoints as import_checkpoints
    from dynalab.api import import_runs as import_runs
    from dynalab.api import load as load
    from dynalab.api import load_all as load_all
    from dynalab.api import train as train
    from dynalab.api import view as view

# Here, since whatever trains, or computes again what was recorded, comes by here first.
choose_kernels()

_PUBLIC = (
    *("analyze", "ensembles_frame", "figures", "fork", "import_checkpoints", "import_runs"),
    *("load", "load_all", "train", "view"),
)


def __getattr__(name: str) -> Any:
    # Lazily: `import dynalab` and the command line stay light.
    import importlib

    if name == "figures":
        return importlib.import_module("dynalab.figures")
    if name in _PUBLIC:
        return getattr(importlib.import_module("dynalab.api"), name)
    raise AttributeError(f"module 'dynalab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
