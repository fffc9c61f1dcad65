"""What single kernels, and other libraries, make of the same work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cards.base import Bench, Check, Outcome, loop_of
from cards.cases import SPEED
from cards.speed import WIDTHS

# Updates that are looked at.
UPDATES = 5
# Channels and sizes of maps: a ResNet-20's on digits, and on CIFAR.
STAGES = ((16, 8), (32, 4), (64, 2), (16, 32), (64, 8))


def busy(name: str) -> Callable[[Bench], Outcome]:
    """Return the check that says how many kernels an update takes, how long they are busy, and which most."""

    def check(bench: Bench) -> Outcome:
        import torch
        from torch.profiler import ProfilerActivity, profile

        told, more = [], {}
        for width in (2,) if bench.dry else (20, 200, 1000) if "resnet" not in name else (20, 200):
            loop = loop_of([*SPEED[name], "probes=[]"], width, bench.device, graph=False)
            for _ in range(5):
                loop.update()
            kinds = [ProfilerActivity.CPU] if bench.dry else [ProfilerActivity.CUDA]
            with profile(activities=kinds) as seen:
                for _ in range(UPDATES):
                    loop.update()
                if not bench.dry:
                    torch.cuda.synchronize()
            found = sorted(seen.key_averages(), key=lambda item: -item.self_device_time_total)
            # Beside the kernels stand the calls that launch them.
            found = [item for item in found if bench.dry or item.self_device_time_total > 0]
            count = sum(item.count for item in found) / UPDATES
            times = {item.key: item.self_device_time_total / UPDATES / 1e3 for item in found}
            more[width] = dict([*times.items()][:20])
            most = ", ".join(f"{key[:60]} {ms:.3f}" for key, ms in [*times.items()][:3])
            told.append(f"S {width}: {count:.0f} kernels, {sum(times.values()):.3f} ms ({most})")
            del loop
        return Outcome("-", "; ".join(told), more={"ms": more})

    return check


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
    for runs, channels, size in (
        ((2, 4, 4),) if bench.dry else [(runs, *stage) for runs in (20, 60, 200) for stage in STAGES]
    ):
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


def jax_peer(name: str) -> Callable[[Bench], Outcome]:
    """Return the check that times the same training as a JAX program, vmapped over seeds, all steps in one call."""

    def check(bench: Bench) -> Outcome:
        try:
            from benches import jax_train
        except ImportError as error:
            return Outcome("-", f"not made: {error}")
        jax, work = jax_train.jax, jax_train.WORKS[name]()
        steps, times = 10 * work.every, {}

        def rows(seed: Any) -> Any:
            return jax_train.train(work, jax.random.key(seed), steps)[1]

        for width in (1, 2) if bench.dry else WIDTHS:
            seeds = jax.numpy.arange(width)
            program = jax.jit(jax.vmap(rows)).lower(seeds).compile()
            jax.block_until_ready(program(seeds))
            began = time.perf_counter()
            jax.block_until_ready(program(seeds))
            times[width] = (time.perf_counter() - began) / steps
        where = jax.devices()[0].platform
        each = ", ".join(f"S {w}: {1 / t:.0f} steps/s" for w, t in times.items())
        text = f"on {where}, rows every {work.every} steps, examples drawn on the device: {each}"
        return Outcome("-", text, more={"seconds": times, "where": where})

    return check


CHECKS = [
    *(Check(f"kernels: {name}", busy(name), alone=True) for name in SPEED),
    Check("speed: convolutions", convolutions, alone=True),
    *(Check(f"speed: {name} in JAX", jax_peer(name), 90, alone=True) for name in ("parity", "grokking")),
]
