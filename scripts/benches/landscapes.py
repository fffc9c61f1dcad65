"""What planes, paths and kernels of 20 networks of digits take, as whole commands on all cores.

A trained Bezier curve, of every run and the next one, and how alike layers are (CKA) are told apart from the rest of
`analyze connectivity` by its time without them.
"""

from __future__ import annotations

import tempfile

from benches.base import Options, Row, Subject
from benches.directions import command

# What is measured -> words of the command, seconds that it may take.
WHOLE = {
    "plane of 51 x 51 points, 1,000 examples": (("landscape", "points=51"), 30.0),
    "kernels of 128 examples and 10 outputs, first and last row": (("kernel", "probes=128"), 20.0),
    "lines of all pairs, 11 points, before and after matching": (("connectivity", "layer_examples=0"), 60.0),
}
BEYOND = {
    "trained Bezier curves of every run and the next, 200 updates": ("layer_examples=0", "curve=true"),
    "likeness of all layers of all pairs, 256 examples": (),
}


def measure(options: Options) -> list[Row]:
    """Train 20 networks, and analyse them."""
    seeds, steps = (3, 20) if options.quick else (20, 400)
    keys = ["task=digits", f"train.steps={steps}", f"seed=0..{seeds - 1}", "probes=[]"]
    keys += [f"snapshots.every={steps}"]
    rows, bare = [], 0.0
    with tempfile.TemporaryDirectory(prefix="dynalab-bench-") as folder:
        command("train", *keys, "-q", "--outputs", folder)
        for what, (words, limit) in WHOLE.items():
            options.say(f"{seeds} networks: {what}")
            short = ["points=5"] if options.quick and words[0] == "landscape" else []
            bare, _ = command("analyze", *words, *short, "--json", "--outputs", folder)
            bar = None if options.quick else 1.0
            note = f"{bare:.1f} s"
            rows.append(Row(f"{seeds} networks of digits: {what}", f"{limit:.0f} s", [bare / limit], bar,
                            at_least=False, note=note))  # fmt: skip
        for what, more in BEYOND.items():
            options.say(f"{seeds} networks: {what}")
            seconds, _ = command("analyze", "connectivity", *more, "--json", "--outputs", folder)
            rows.append(Row(f"{seeds} networks of digits: {what}", "connectivity without them", [seconds / bare],
                            at_least=False, note=f"{seconds - bare:.1f} s more"))  # fmt: skip
    return rows


SUBJECT = Subject("landscapes", "planes, paths and kernels of 20 networks of digits", measure)
