"""What a worker spares itself when it starts."""

from __future__ import annotations

import sys


def spare_compiler() -> None:
    """Keep torch's optimizers from importing torch's compiler at their first call: a second that nothing here uses.

    `torch.optim.Optimizer` marks some methods as not to be compiled, and the mark is made at the first call by the
    compiler itself. Here the mark is that the method is as it is, which it would be in any case without compilation. A
    plug-in that compiles imports the compiler on its own.
    """
    import torch

    if "torch._dynamo" in sys.modules:
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)
