"""Hidden Markov models of training: which latent states the runs passed through, and in which order.

After Hu et al., "Latent State Models of Training Dynamics" (TMLR, 2023, arXiv 2308.09543), with the
following differences: states of dynamics (switching autoregression) beside states of
level, normalisation pooled over runs, the number of states by held-out likelihood of whole runs, and
covariances that cannot degenerate.

Whether there are states at all is told from 13 rows on for each feature and one more, of all runs together: of 85
simulated ensembles of 2 to 4 states and 13 rows or somewhat more one state was found in 1, of 36 with 10 to 13 rows in
2, of 59 with fewer in 16. Below, one state is said to be more than can be told, and several may be more than were
found. Of the 85, two states were found to be as many in 24 of 24, three in 22 of 29, four in 14 of 32, in none more.
"""

# Importing this package imports no hmmlearn, pandas or scipy: a page that shows findings needs none.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dynalab.analysis.base import Group, Needs, on_one_grid
from dynalab.analysis.hmm.comparison import Contrast, compare
from dynalab.analysis.hmm.comparison import content as compared
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.findings import Findings, known
from dynalab.analysis.hmm.published import show_contrasts
from dynalab.analysis.hmm.summary import show

__all__ = [
    "CONTRAST_VERSION", "NEEDS", "TITLE", "VERSION", "Config", "Contrast", "Findings", "analyse", "compared",
    "contrast", "show", "show_contrasts",
]  # fmt: skip

VERSION = 16
FIGURES = ("map", "states", "selection", "detours", "profile-*")
CONTRAST_VERSION = 5  # it rises when a number of `contrast` changes


def NEEDS(config: Config | None = None) -> Needs:
    """Return which runs enter: done ones; a stored model also decodes those that are still training."""
    if config is None or config.decode_with is None:
        return Needs()
    return Needs(statuses=("done", "running", "partial"))


def TITLE(findings: Findings) -> str:
    """Return the heading of a section."""
    return "Runs under a stored model" if known(findings.decoded_with) else "Hidden Markov model"


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Fit an HMM to the runs and describe the states they pass through, or decode them with a stored model.

    Runs may be ragged and on different grids of steps.

    Raises:
        ConfigError: A key that cannot be used with these runs.
        NothingMatched: No runs, none of the default metrics, or not those of the stored model.
    """
    from dynalab.analysis.hmm import online, outcome

    trajectories = on_one_grid([_in_order(group) for group in groups])
    return (outcome.infer if config.decode_with is None else online.decode)(trajectories, config)


def _in_order(group: Group) -> Group:
    """Return a group with its runs in the order of the store: folds and draws go by it."""
    return replace(
        group, runs=tuple(sorted(group.runs, key=lambda run: (run.seed is None, run.seed or 0, run.label)))
    )


def contrast(findings: Mapping[str, Findings]) -> Contrast:
    """Compare two settings, the second with the first, the reference."""
    one, other = findings.values()
    return compare(one, other)
