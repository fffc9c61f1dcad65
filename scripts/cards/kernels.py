"""What single kernels, and other libraries, make of the same work."""

from __future__ import annotations

import itertools
import time
from typing import Any

from cards.base import Bench, Check, Outcome, configuration
from cards.cases import SPEED
from cards.speed import WIDTHS


def convolutions(bench: Bench) -> Outcome:
    """Time ways to convolve the maps of S runs, each by its own weights: forward and backward, as in ResNet-20."""
    import torch
    from torch.nn.functional import conv2d, unfold

    def loop(x: Any, w: Any) -> Any:
        return torch.cat([conv2d(*run, padding=1) for run in zip(x.chunk(len(w), 1), w, strict=True)], 1)

    def grouped(x: Any, w: Any) -> Any:
        return conv2d(x, w.flatten(0, 1), padding=1, groups=len(w))

    def products(x: Any, w: Any) -> Any:
        columns = unfold(x, 3, padding=1).unflatten(1, (len(w), -1))
        columns = columns.permute(1, 2, 0, 3)
        found = torch.bmm(w.flatten(2), columns.flatten(2))
        return (
            found.unflatten(2, columns.shape[2:]).permute(2, 0, 1, 3).flatten(1, 2).unflatten(2, x.shape[2:])
        )

    wait = (lambda: None) if bench.dry else torch.cuda.synchronize
    told, more = [], {}
    for runs, channels, size in ((2, 4, 4),) if bench.dry else ((20, 16, 8), (200, 16, 8), (200, 64, 2)):
        x = torch.randn(128, runs * channels, size, size, device=bench.device, requires_grad=True)
        w = torch.randn(runs, channels, channels, 3, 3, device=bench.device, requires_grad=True)
        wanted, times = loop(x, w).detach(), {}
        for way in (loop, grouped, products):
            gap = float((way(x, w).detach() - wanted).abs().max() / wanted.abs().max())
            assert gap < 1e-4, (way.__name__, gap)
            for repeat in range(12):
                if repeat == 2:
                    wait()
                    began = time.perf_counter()
                torch.autograd.grad(way(x, w).sum(), [x, w])
            wait()
            times[way.__name__] = (time.perf_counter() - began) / 10
        more[f"{runs} of {channels} at {size}"] = times
        took = ", ".join(f"{way} {1e3 * seconds:.2f} ms" for way, seconds in times.items())
        told.append(f"{runs} runs of {channels} channels, {size} x {size}: {took}")
    return Outcome("-", "; ".join(told), True, {"seconds": more})


def jax_parity(bench: Bench) -> Outcome:
    """Time the same work in JAX, vmapped over seeds: a bare step of parity's network, batches drawn on the device."""
    try:
        import jax  # type: ignore[import-not-found, unused-ignore]
        import jax.numpy as jnp  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return Outcome("-", "JAX is not installed", True)
    config = configuration(SPEED["parity"])
    n, k, hidden, batch = config.task.n, config.task.k, config.model.hidden, int(config.train.batch_size)
    rate, sizes = config.optimizer.lr, [config.task.n, *config.model.hidden, 1]

    def init(key: Any) -> Any:
        keys = jax.random.split(key, len(sizes))
        return [
            (jax.random.uniform(keys[i], (a, b), minval=-(a**-0.5), maxval=a**-0.5), jnp.zeros(b))
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
        ]

    def loss(params: Any, x: Any, y: Any) -> Any:
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return jnp.maximum(0.0, 1.0 - y * (x @ w + b)[:, 0]).mean()

    def step(params: Any, key: Any) -> Any:
        x = jax.random.rademacher(key, (batch, n), dtype=jnp.float32)
        grads = jax.grad(loss)(params, x, x[:, :k].prod(1))
        return jax.tree.map(lambda p, g: p - rate * g, params, grads)

    stacked = jax.jit(jax.vmap(step))
    times = {}
    for width in (1, 2) if bench.dry else WIDTHS:
        params = jax.vmap(init)(jax.random.split(jax.random.key(0), width))
        keys = jax.random.split(jax.random.key(1), width)
        for _ in range(3):
            params = stacked(params, keys)
        jax.block_until_ready(params)
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < 0.7:
            for _ in range(20):
                params = stacked(params, keys)
            jax.block_until_ready(params)
            steps += 20
        times[width] = (time.perf_counter() - began) / steps
    where = jax.devices()[0].platform
    told = ", ".join(f"S {w}: {1 / t:.0f} steps/s" for w, t in times.items())
    return Outcome(
        "-", f"on {where}, hidden {hidden}, no data crosses: {told}", True, {"seconds": times, "where": where}
    )


CHECKS = [
    Check("speed: convolutions", convolutions, alone=True),
    Check("speed: parity in JAX", jax_parity, alone=True),
]
