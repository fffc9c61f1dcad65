"""What is trained on a card and on the CPU: every task, model, optimizer and probe that needs no files."""

from __future__ import annotations

from cards.base import Bench

# Every task, model, optimizer and probe that needs no files of the user's, and what the engine does beside.
CASES = {
    "parity": "task=parity probes=[weights,gradients,parity,curvature,spectrum]",
    "grokking": "task=grokking probes=[weights,gradients,numerics,curvature,spectrum]",
    "digits mlp": "task=digits probes=[weights,gradients,numerics,curvature,spectrum]",
    "digits resnet20": "task=digits model=resnet20 probes=[weights,gradients,curvature]",
    "mlm": "task=mlm probes=[weights,gradients,curvature]",
    "grokking nanda adam": "task=grokking model=nanda optimizer=adam probes=[weights,gradients,curvature]",
    "grokking nanda layer norm": "task=grokking model=nanda model.layer_norm=true optimizer=rmsprop",
    "grokking power": (
        "task=grokking model=power optimizer=adam train.batch_size=64 train.clip=1 "
        "train.accumulate=2 probes=[weights,gradients,curvature]"
    ),
    "grokking one-hot": (
        "task=grokking model=onehot_mlp optimizer=rmsprop probes=[weights,gradients,curvature]"
    ),
    "grokking gromov": (
        "task=grokking model=gromov task.loss=mse optimizer=sgd optimizer.momentum=0.9 "
        "optimizer.nesterov=true probes=[weights,gradients,curvature]"
    ),
    "parity polynet": "task=parity model=polynet probes=[weights,gradients,parity,curvature]",
    "parity sinusoid": "task=parity model=sinusoid probes=[weights,gradients,parity,curvature]",
    "parity noisy": "task=parity task.loss=logistic task.label_noise=0.1",
    "parity sample": "task=parity task.samples=500 task.loss=square optimizer=adamw",
    "regression": "task=regression probes=[weights,gradients,curvature,spectrum,directions]",
    "regression teacher": "task=regression task.target=teacher task.loss=mse optimizer=adam",
    "digits sam": "task=digits optimizer=sam probes=[weights,gradients,curvature]",
    "digits lookahead": (
        "task=digits optimizer=lookahead optimizer.inner=adam probes=[weights,gradients,curvature]"
    ),
    "digits cosine": "task=digits optimizer=adamw schedule=cosine train.halve_at=10",
    "digits noisy": "task=digits task.label_noise=0.2 task.input_noise=0.1 task.normalise=pixel",
    "digits float64": "task=digits train.loss_dtype=float64 train.accumulate=2",
    "digits sphere": (
        "task=digits model=si_mlp train.sphere=true probes=[weights,gradients,scale_invariant,curvature]"
    ),
    "digits si_convnet": (
        "task=digits model=si_convnet model.width=8 probes=[weights,gradients,scale_invariant]"
    ),
    "digits resnet20 slow": "task=digits model=resnet20 optimizer=lookahead probes=[weights,gradients]",
    "digits resnet18 groups": "task=digits model=resnet18 model.norm=group model.width=16",
    "grokking stablemax": (
        "task=grokking task.loss=stablemax optimizer.orthogonal=true probes=[weights,gradients,numerics,fourier]"
    ),
    "grokking clamped": (
        "task=grokking train.norm_clamp=0.9 train.temperature=2 probes=[weights,gradients,numerics]"
    ),
    "digits examples": "task=digits optimizer=adamw schedule=inverse_sqrt probes=[weights,gradients,examples]",
    "mlm dropout": "task=mlm model.dropout=0.1 optimizer=lookahead probes=[weights,gradients]",
    "mlm untied": "task=mlm model.tied=false optimizer=sgd",
}
# What a case lacks of these words it is given; a full batch is evaluated whole, so that the shared pass is met.
COMMON = ["eval.every=1", "eval.size=128"]
WHOLE = ("grokking", "regression", "grokking gromov")
# What is timed, and looked at for waits.
SPEED = {
    "parity": ["task=parity"],
    "grokking": ["task=grokking"],
    "mlm": ["task=mlm"],
    "resnet20 digits": ["task=digits", "model=resnet20"],
}


def words_of(name: str, bench: Bench) -> list[str]:
    """Return the words of a case."""
    words = [*CASES[name].split(), *COMMON]
    if name in WHOLE and not bench.dry:
        words.remove("eval.size=128")
    probes = " ".join(words)
    if "curvature" in probes:
        words += ["probe.curvature.every=10", "probe.curvature.size=64", "probe.curvature.trace=2"]
    if "fourier" in probes:
        words += ["probe.fourier.every=10", *(["task.modulus=11"] if bench.dry else [])]
    if "spectrum" in probes:
        words += ["probe.spectrum.every=20", "probe.spectrum.size=64", "probe.spectrum.m=10"]
    return words
