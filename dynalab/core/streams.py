"""Named random streams: every source of chance in a run has a generator of its own.

A stream is derived from (seed, name) the way `numpy.random.SeedSequence` spawns, and a draw from (seed, name, key),
where the key says what is drawn (an epoch, a block of steps). Draws are therefore functions of the step alone:
a resumed run needs no generator state, and no draw can shift another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# The spawn keys are part of what a seed means. They never change; new names get new numbers.
NAMES = {"init": 0, "split": 1, "order": 2, "noise": 3}
# Of what an edit draws; no field of `Streams`, for it has no seed of its own in a configuration.
EDIT = 4


@dataclass(frozen=True)
class Streams:
    """The seeds of the four streams of one run."""

    init: int
    split: int  # Which examples are training data.
    order: int  # Batches and augmentation.
    noise: int  # Dropout and label noise.

    @classmethod
    def from_seed(cls, seed: int, **fixed: int) -> Streams:
        """Give every stream `seed`, except those that `fixed` names."""
        return cls(**{name: fixed.get(name, seed) for name in NAMES})

    def sequence(self, name: str, *key: int) -> np.random.SeedSequence:
        """Return the seed sequence of the draw `key` in the stream `name`."""
        return np.random.SeedSequence(getattr(self, name), spawn_key=(NAMES[name], *key))

    def numpy(self, name: str, *key: int) -> np.random.Generator:
        """Return a fresh NumPy generator for the draw `key` in the stream `name`."""
        return np.random.Generator(np.random.PCG64(self.sequence(name, *key)))

    def integer(self, name: str, *key: int) -> int:
        """Return 63 bits of the stream `name`, for generators that take an integer seed."""
        return int(self.sequence(name, *key).generate_state(1, np.uint64)[0] >> 1)

    def torch(self, name: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a fresh torch generator for the draw `key` in the stream `name`."""
        import torch

        return torch.Generator(device=device).manual_seed(self.integer(name, *key))

    @contextmanager
    def seeded(self, name: str, *key: int) -> Iterator[None]:
        """Have torch's global generators draw from the stream `name` for a while; the CPU's is then as it was."""
        import torch

        seed = self.integer(name, *key)
        with torch.random.fork_rng(devices=[]):
            if torch.cuda.is_available():
                torch.manual_seed(seed)
            else:
                # For cards that are asked for later torch would keep the call and its stack, which takes a millisecond.
                torch.default_generator.manual_seed(seed)
            yield


def edit_generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of what an edit draws.

    Args:
        seed: `edit.seed`.
        key: The run's seed (in a crossed design those of its streams) and the step of the fork; nothing for what all
            runs share.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *key], spawn_key=(EDIT,))))
