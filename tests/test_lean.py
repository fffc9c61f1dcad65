"""A worker does not import torch's compiler."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, torch
from dynalab.worker import spare_compiler
spare_compiler()
from dynalab.config.command import read_command
from dynalab.training.loop import Loop
from dynalab.training.streams import Streams
for text in "task=grokking task.modulus=7", "task=mlm task.vocabulary=300", "task=digits model=resnet20":
    (request,) = read_command([*text.split(), "optimizer=adamw"]).requests
    loop = Loop(request.config, [Streams.from_seed(0)], 10, torch.device("cpu"))
    loop.update()
    loop.rows()
    copy = torch.optim.AdamW([torch.zeros(2, requires_grad=True)])
    copy.load_state_dict(copy.state_dict())
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


def test_training_steps_without_the_compiler():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
