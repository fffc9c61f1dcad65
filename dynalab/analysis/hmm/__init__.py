"""Hidden Markov models of training: which latent states the runs passed through, and in which order.

After Hu et al., "Latent State Models of Training Dynamics" (TMLR, 2023, arXiv 2308.09543), with the
following differences: states of dynamics (switching autoregression) beside states of
level, normalisation pooled over runs, the number of states by held-out likelihood of whole runs, and
covariances that cannot degenerate.

Importing this package imports neither numpy nor hmmlearn: the command line reads `Config` when it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynalab.analysis.hmm.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dynalab.analysis.base import Outcome, Trajectories

__all__ = ["VERSION", "Config", "analyse", "decode", "describe", "statuses"]

VERSION = 6


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Fit an HMM to the runs of an ensemble and describe the states they pass through.

    Args:
        trajectories: The runs; ragged and on different grids of steps if need be.
        config: Keys of the analysis.

    Returns:
        Result, tables and warnings.

    Raises:
        ConfigError: A key that cannot be used with these runs.
        NothingMatched: No runs, or none of the default metrics.
    """
    from dynalab.analysis.claims import claims
    from dynalab.analysis.hmm import outcome

    found = outcome.analyse(trajectories, config)
    found.result["claims"] = claims(found.result)
    return found


def statuses(config: Config) -> tuple[str, ...]:
    """Return which runs enter: done ones; a stored model also decodes those that are still training."""
    return ("done",) if config.decode_with is None else ("done", "running", "partial")


def decode(trajectories: Trajectories, stored: Mapping[str, Any], config: Config) -> Outcome:
    """Decode runs with the model of a stored analysis, without looking ahead.

    Args:
        trajectories: The runs, whole or still training.
        stored: The plain values of the stored analysis.
        config: `steps` and `convergence` matter here.

    Raises:
        ConfigError: A key of the fit is set, or the analysis has no model.
        NothingMatched: The runs lack a metric of the model.
    """
    from dynalab.analysis.hmm import online

    online.check(config)
    return online.decode(trajectories, stored, config)


def describe(result: Mapping[str, Any]) -> list[str]:
    """Return a stored result in a few lines for a terminal."""
    from dynalab.analysis.hmm import words

    return words.describe(result)
