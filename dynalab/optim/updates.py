"""The updates of torch's SGD, Adam and AdamW, equal to the bit, without what surrounds them there.

At every call torch's `step` enters the profiler, sorts the tensors by device and type, and checks what cannot have
changed: 50 to 100 us, where the step of a small network takes 250. What remains are the same `foreach` operations in
the same order (tests/test_updates.py holds them against torch's own).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]


def sgd(group: Group, params: list[Tensor], grads: list[Tensor], states: list[dict[str, Any]]) -> None:
    """Update one group as `torch.optim.SGD` does; `states` have what it holds for each, all of one age."""
    if group["fused"]:
        _fused_sgd(group, params, _laid_out(grads), states)
        return
    if group["weight_decay"]:
        grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
    if group["momentum"]:
        if "momentum_buffer" in states[0]:
            buffers = [state["momentum_buffer"] for state in states]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads, alpha=1 - group["dampening"])
        else:
            buffers = [grad.clone() for grad in grads]
            for state, buffer in zip(states, buffers, strict=True):
                state["momentum_buffer"] = buffer
        # Not in place, as torch has it: probes read the gradient after the update.
        ahead = group["nesterov"]
        grads = list(torch._foreach_add(grads, buffers, alpha=group["momentum"])) if ahead else buffers
    torch._foreach_add_(params, grads, alpha=-group["lr"])


def adam(group: Group, params: list[Tensor], grads: list[Tensor], states: list[dict[str, Any]]) -> None:
    """Update one group as `torch.optim.Adam` and `AdamW` do; arguments as `sgd`."""
    lr, decay, (beta1, beta2) = group["lr"], group["weight_decay"], group["betas"]
    if "step" not in states[0]:
        for param, state in zip(params, states, strict=True):
            state["step"] = torch.zeros((), dtype=torch.get_default_dtype())
            for moment in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 3 if group["amsgrad"] else 2]:
                state[moment] = torch.zeros_like(param)
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1.0)
    if group["fused"]:
        kernel: Any = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]
        largest = [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else []
        numbers = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": decay, "maximize": False}
        numbers |= {name: group[name] for name in ("eps", "amsgrad")}
        kernel(params, _laid_out(grads), *moments, largest, steps, **numbers)
        return
    step = steps[0].item()
    if decay and group["decoupled_weight_decay"]:
        torch._foreach_mul_(params, 1 - lr * decay)
    elif decay:
        grads = list(torch._foreach_add(grads, params, alpha=decay))
    first = [state["exp_avg"] for state in states]
    second = [state["exp_avg_sq"] for state in states]
    torch._foreach_lerp_(first, grads, 1 - beta1)
    torch._foreach_mul_(second, beta2)
    torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
    if group["amsgrad"]:
        largest = [state["max_exp_avg_sq"] for state in states]
        torch._foreach_maximum_(largest, second)
        second = largest
    scale = torch._foreach_sqrt(second)
    torch._foreach_div_(scale, (1 - beta2**step) ** 0.5)
    torch._foreach_add_(scale, group["eps"])
    torch._foreach_addcdiv_(params, first, scale, -(lr / (1 - beta1**step)))


def _fused_sgd(group: Group, params: list[Tensor], grads: list[Tensor], states: list[dict[str, Any]]) -> None:
    momentum = group["momentum"]
    first = bool(momentum) and "momentum_buffer" not in states[0]
    if first:
        for param, state in zip(params, states, strict=True):
            state["momentum_buffer"] = torch.zeros_like(param)
    numbers = {name: group[name] for name in ("weight_decay", "momentum", "lr", "dampening", "nesterov")}
    buffers = [state["momentum_buffer"] for state in states] if momentum else []
    torch._fused_sgd_(params, grads, buffers, **numbers, maximize=False, is_first_step=first)


def _laid_out(grads: list[Tensor]) -> list[Tensor]:
    """Return gradients as they lie in memory where parameters do: the fused kernels take entries in their order."""
    return [grad.contiguous() for grad in grads]


def fuse(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer use torch's fused kernels where it has some: faster, but an entry's bits depend on its place.

    For a run that shares its tensors with no other, and only on a CPU, where the kernels' state is that of the rest.
    """
    if type(getattr(optimizer, "inner", optimizer)) in _UPDATES:
        for group in optimizer.param_groups:
            group["fused"] = True


_UPDATES: dict[type, Callable[[Group, list[Tensor], list[Tensor], list[dict[str, Any]]], None]] = {
    torch.optim.SGD: sgd,
    torch.optim.Adam: adam,
    torch.optim.AdamW: adam,
}
# With one of these torch computes something else, or elsewhere.
_OTHERWISE = ("maximize", "capturable", "differentiable")


def _known(optimizer: torch.optim.Optimizer) -> bool:
    return type(optimizer) in _UPDATES and all(
        group["foreach"] and not any(group.get(key) for key in _OTHERWISE) for group in optimizer.param_groups
    )


def _of_one_age(optimizer: torch.optim.Optimizer, params: list[Tensor]) -> list[list[Tensor]]:
    """Return the parameters that have a gradient, those together that had the same number of updates."""
    ages: dict[float, list[Tensor]] = {}
    for param in params:
        if param.grad is not None:
            state = optimizer.state[param]
            age = state["step"].item() if "step" in state else float(len(state))
            ages.setdefault(age, []).append(param)
    return list(ages.values())


def make_step(optimizer: torch.optim.Optimizer) -> None:
    """Make an update from the gradients in `.grad`; as in torch, a parameter whose gradient is None stays as it is.

    Where the update is not known here, the methods of torch's own optimizers are called without their wrapping, which
    imports torch's compiler (a second) and serves the profiler and step hooks; what it does beside, no gradients of
    the update, is done here. Others are called as they are.
    """
    if _known(optimizer):
        update = _UPDATES[type(optimizer)]
        with torch.no_grad():
            for group in optimizer.param_groups:
                for params in _of_one_age(optimizer, group["params"]):
                    grads = [param.grad for param in params if param.grad is not None]
                    update(group, params, grads, [optimizer.state[param] for param in params])
        return
    plain = type(optimizer).step
    if plain.__module__.startswith("torch.optim."):
        with torch.no_grad():
            inspect.unwrap(plain)(optimizer)
    else:
        optimizer.step()
