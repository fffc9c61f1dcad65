"""Names of the figures that no analysis makes: a command line is completed with them, so nothing is imported here."""

from __future__ import annotations

# Figures of the page that no analysis makes -> what makes them.
MADE_BY = {
    "curves": "`dynalab train` records losses and accuracies",
    "landmarks": "it shows several runs of which some memorise or generalise",
    "metrics": "`dynalab train` records metrics: the probes named by `probes=`",
    "comparison": "it shows several ensembles: name them, or a sweep",
    "fork": "it shows a fork beside its parent: name one that `dynalab fork` made",
    "claims": "it shows a paper's claims: `dynalab reproduce` tries them, and `NAME-SCALE` names what it stored",
}
# Those that `--metric` chooses the curves of.
OF_METRICS = ("curves", "metrics", "comparison")
