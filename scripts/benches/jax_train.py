"""The same training as a JAX program, as who knows JAX would write it: one compiled call for all seeds and steps.

Runs in an environment of its own (`benches.jax_peer` makes it) and imports nothing of dynalab. Networks,
initialisations, losses, optimizers, batch sizes, splits and the grid of evaluation are those of `task=grokking` and
of `task=parity`; numbers are drawn by JAX, so seeds are other runs of the same law. In every row of the grid stand
the losses and accuracies of training and of held-out examples and the norm of the weights.

    python jax_train.py grokking|parity SEEDS STEPS OUT.npz      (answers JSON)
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

BEGAN = time.perf_counter()
CORES = len(os.sched_getaffinity(0))
# A device a core, each with its share of the seeds. One device that cuts products into pieces for all cores takes 1.1
# times the CPU time and leaves cores idle: products of networks as small as these are over too soon.
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count={CORES} --xla_cpu_multi_thread_eigen=false "
    + os.environ.get("XLA_FLAGS", "")
)

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax import lax, random  # noqa: E402
from jax import numpy as jnp  # noqa: E402

# Threefry, the default, compiles a second longer, and draws no faster.
jax.config.update("jax_default_prng_impl", "unsafe_rbg")

Array = jax.Array
Params = dict[str, Array]


class Work(NamedTuple):
    """What one seed trains.

    Attributes:
        every: Steps between evaluations.
        width: Seeds that a device trains side by side, the fastest that was tried; it takes so many after so many.
        optimizer: Optax's.
        init: Key -> parameters.
        data: Key -> what is drawn once: the examples of training and of evaluation.
        draw: Key, data -> what `every` steps are made of, with a leading axis of steps; None where it is always the
            same examples.
        loss: Parameters, data, what the step is made of -> the loss that is differentiated.
        evaluate: Parameters, data -> (training loss, training accuracy, held-out loss, held-out accuracy).
    """

    every: int
    width: int
    optimizer: optax.GradientTransformation
    init: Callable[[Array], Params]
    data: Callable[[Array], Any]
    draw: Callable[[Array, Any], Any]
    loss: Callable[[Params, Any, Any], Array]
    evaluate: Callable[[Params, Any], tuple[Array, ...]]


def uniform(key: Array, shape: tuple[int, ...], fan_in: int) -> Array:
    """Draw as torch's linear layers do."""
    return random.uniform(key, shape, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)


def grokking(modulus: int = 59, width: int = 128, share: float = 0.4) -> Work:
    """Modular addition by two tables, a square and a linear layer; full batch, AdamW."""
    size = int(share * modulus * modulus)

    def init(key: Array) -> Params:
        left, right, output = random.split(key, 3)
        return {
            "left": random.normal(left, (modulus, width)),
            "right": random.normal(right, (modulus, width)),
            "output": uniform(output, (width, modulus), width),
        }

    def data(key: Array) -> Any:
        order = random.permutation(key, modulus * modulus)
        a, b = order // modulus, order % modulus
        return tuple((part[:size], part[size:]) for part in (a, b, (a + b) % modulus))

    def losses(params: Params, a: Array, b: Array, target: Array) -> tuple[Array, Array]:
        logits = jnp.square(params["left"][a] + params["right"][b]) @ params["output"]
        right = jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]
        loss = jnp.mean(jax.nn.logsumexp(logits, axis=1) - right)
        return loss, jnp.mean(right >= logits.max(1))

    def evaluate(params: Params, data: Any) -> tuple[Array, ...]:
        return *losses(params, *(part[0] for part in data)), *losses(params, *(part[1] for part in data))

    return Work(
        every=10,
        # 1.27 ms of one core a step and seed; 1.52 with 5, 1.57 with 10, whose numbers leave the cache.
        # Tables by one-hot products instead of rows 2.8, with those in the gradient alone 2.0, all pairs as a grid 3.3.
        width=1,
        optimizer=optax.adamw(3e-3, b1=0.9, b2=0.98, weight_decay=1.0),
        init=init,
        data=data,
        draw=lambda key, data: None,
        loss=lambda params, data, _: losses(params, *(part[0] for part in data))[0],
        evaluate=evaluate,
    )


def parity(n: int = 30, k: int = 3, width: int = 100, batch: int = 32, held_out: int = 1024) -> Work:
    """Sparse parity by a ReLU network; hinge loss, SGD, fresh examples in every batch."""

    def init(key: Array) -> Params:
        w1, b1, w2, b2 = random.split(key, 4)
        return {
            "w1": uniform(w1, (n, width), n),
            "b1": uniform(b1, (width,), n),
            "w2": uniform(w2, (width,), width),
            "b2": uniform(b2, (), width),
        }

    def examples(words: Array) -> tuple[Array, Array]:
        """Unpack 32 examples from n words, (..., n), a coordinate a word: inputs (..., 32, n), labels (..., 32)."""
        bits = (words[..., None, :] >> jnp.arange(32, dtype=jnp.uint32)[:, None]) & 1
        inputs = 1.0 - 2.0 * bits.astype(jnp.float32)
        return inputs, jnp.prod(inputs[..., :k], axis=-1)

    def held(key: Array) -> tuple[Array, Array]:
        inputs, labels = examples(random.bits(key, (held_out // 32, n)))
        return inputs.reshape(-1, n), labels.reshape(-1)

    def data(key: Array) -> Any:
        return [held(part) for part in random.split(key)]

    def losses(params: Params, inputs: Array, labels: Array) -> tuple[Array, Array]:
        hidden = jax.nn.relu(inputs @ params["w1"] + params["b1"])
        margin = (hidden @ params["w2"] + params["b2"]) * labels
        return jnp.mean(jax.nn.relu(1.0 - margin)), jnp.mean(margin > 0)

    assert batch == 32
    return Work(
        every=100,
        # 12 us a step and seed; by themselves 13, all 100 at once 13.
        width=5,
        optimizer=optax.sgd(0.1),
        init=init,
        data=data,
        # Words, not numbers, so that the examples of a hundred steps stay in the cache.
        draw=lambda key, data: random.bits(key, (100, n)),
        loss=lambda params, data, words: losses(params, *examples(words))[0],
        evaluate=lambda params, data: (*losses(params, *data[0]), *losses(params, *data[1])),
    )


WORKS = {"grokking": grokking, "parity": parity}


def train(work: Work, key: Array, steps: int) -> tuple[Params, Array]:
    """Train one seed: its last parameters, and its rows (T, 5)."""
    init, split, order = random.split(key, 3)
    params, data = work.init(init), work.data(split)

    def step(carry: Any, drawn: Any) -> tuple[Any, None]:
        params, state = carry
        gradients = jax.grad(work.loss)(params, data, drawn)
        updates, state = work.optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    def row(params: Params) -> Array:
        return jnp.stack([*work.evaluate(params, data), optax.tree.norm(params)])

    def block(carry: Any, index: Array) -> tuple[Any, Array]:
        drawn = work.draw(random.fold_in(order, index), data)
        carry, _ = lax.scan(step, carry, drawn, length=work.every)
        return carry, row(carry[0])

    start = (params, work.optimizer.init(params))
    (last, _), rows = lax.scan(block, start, jnp.arange(steps // work.every))
    return last, jnp.concatenate([row(params)[None], rows])


def main() -> None:
    """Train the seeds, keep rows and weights, say how long what took and what was learnt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("seeds", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("out")
    given = parser.parse_args()
    work = WORKS[given.work]()

    # As many seeds on every device; the last ones are trained for nothing where they do not divide.
    n = -(-given.seeds // CORES) * CORES
    mesh = jax.make_mesh((CORES,), ("seeds",))
    spec = jax.sharding.PartitionSpec("seeds")

    def share(seeds: Array) -> tuple[Params, Array]:
        return lax.map(lambda seed: train(work, random.key(seed), given.steps), seeds, batch_size=work.width)

    seeds = jax.device_put(np.arange(n), jax.NamedSharding(mesh, spec))
    program = jax.jit(jax.shard_map(share, mesh=mesh, in_specs=spec, out_specs=spec))
    ready = time.perf_counter()
    compiled = program.lower(seeds).compile()
    began = time.perf_counter()
    params, rows = jax.block_until_ready(compiled(seeds))
    ended = time.perf_counter()
    rows = np.asarray(rows)[: given.seeds]
    np.savez(given.out, rows=rows, **{name: np.asarray(value) for name, value in params.items()})
    print(
        json.dumps(
            {
                "start": ready - BEGAN,
                "compile": began - ready,
                "train": ended - began,
                "train_accuracy": rows[:, -1, 1].tolist(),
                "test_accuracy": rows[:, -1, 3].tolist(),
            }
        )
    )


if __name__ == "__main__":
    main()
