"""What the probes cost on grokking: all 14 metrics, norms and evaluation every 10 steps, against hardly any."""

from __future__ import annotations

from benches.base import Options, Row, Subject, dynalab, gather

ON = ("probes=[weights,gradients]", "eval.every=10")
OFF = ("probes=[]", "eval.every=1000000")


def measure(options: Options) -> list[Row]:
    """Time the same 20 seeds with and without."""
    seeds, steps = (2, 40) if options.quick else (20, 2000)
    words = ["task=grokking", f"train.steps={steps}", f"seed=0..{seeds - 1}"]
    words += ["compute.workers=1"] * options.quick
    whole, training, seconds = [], [], []
    for pair in range(options.pairs):
        options.say(f"probes, pair {pair + 1} of {options.pairs}")
        on, off = dynalab([*words, *ON]), dynalab([*words, *OFF])
        whole.append(on.seconds / off.seconds)
        training.append(on.train_seconds / off.train_seconds)
        seconds.append({"dynalab": on.seconds, "without probes": off.seconds})
    what = f"{seeds} seeds of grokking, {steps:,} steps, probes every 10"
    bar = None if options.quick else 1.1
    return [
        Row(what, "without, whole command", whole, bar, at_least=False, seconds=gather(seconds)),
        Row(what, "without, training alone", training, at_least=False, note="start-up apart"),
    ]


SUBJECT = Subject("probes", "what probes and evaluation every 10 steps cost on grokking", measure)
