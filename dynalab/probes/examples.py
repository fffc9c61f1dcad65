"""`probes=[examples]`: which held-out examples are right, one bit each.

They are the examples that the evaluation walks through, in its order, so the share of the bits that are set is the
`test_accuracy` of the row; where a row stands on the grid of `eval.every`, as it does by default, the outputs are those
of the evaluation, and a row costs next to nothing. On another grid each row is a pass over the held-out examples.

An example is known by its place: bit i of a run is the same example in all of its rows. Whether two runs hold out the
same examples depends on the task: `mnist` and `cifar` have one held-out set, in `grokking`, `digits` and `parity` a
run's is drawn from its stream `split`, and `seed_streams.split=0` gives all runs one. The block `examples_set` says
which: it is equal in two runs if and only if they hold out the same examples in the same order. `dynalab analyze
examples` says what of the spread of accuracy between seeds is their number.

In `mlm` an example has several places, each right or wrong, and in `regression` none is: there the probe is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dynalab.config.keys import key
from dynalab.core.batch import Batch
from dynalab.core.blocks import Block
from dynalab.core.columns import Column, Columns
from dynalab.probes.base import Cadence, Setting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.core.state import ProbeState

# Evaluations from one row to the next, by default.
ROWS = 5


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe."""

    name: str = "examples"
    every: int | None = key(None, f"steps between measurements; null: {ROWS} times eval.every", least=1)
    size: int | None = key(
        None, "held-out examples that are followed, the first so many; null: all that are evaluated", least=1
    )


# Both are blocks.
COLUMNS: Columns = {
    "examples": Column(
        "block, ceil(n/8) bytes a run: which of n held-out examples are right, a bit each, padded with 0; "
        "`numpy.unpackbits` gives them in their order",
        "1",
    ),
    "examples_set": Column(
        "block: a hash of the held-out examples that are followed, in their order, and their number", "1"
    ),
}


def default_every(config: Config, ensemble: EnsembleConfig) -> int:
    """Return the steps between rows."""
    return ROWS * ensemble.eval.every


def in_words(config: Config, ensemble: EnsembleConfig) -> dict[str, object]:
    """Return what the nulls of the probe's section mean."""
    return {"size": "all held-out examples that are evaluated"}


@dataclass
class Examples:
    """The probe; implements `dynalab.probes.base.Probe`."""

    size: int | None = None
    needs: frozenset[str] = frozenset({"correct"})
    blocks: dict[str, Block] = field(default_factory=dict)
    _sets: Tensor | None = field(default=None, repr=False)

    def begin(self, setting: Setting) -> None:
        """See which examples are held out."""
        import torch

        followed = sets(setting.data.eval_batches("test"), self.size)
        self.size = followed[0][1]
        self.blocks = {
            "examples": Block("uint8", (-(-self.size // 8),)),
            "examples_set": Block("int64", (2,)),
        }
        self._sets = torch.tensor(followed, device=next(iter(setting.params.values())).device)

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the two blocks, (S, ceil(n/8)) and (S, 2)."""
        assert state.correct is not None and self._sets is not None
        return {"examples": packed(state.correct[:, : self.size]), "examples_set": self._sets}


def build(config: Config, network: nn.Module) -> Examples:
    """Build the probe; it looks at outputs alone."""
    return Examples(config.size)


def packed(bits: Tensor) -> Tensor:
    """Pack bits (S, n) into bytes (S, ceil(n/8)), the first bit in the highest place, as `numpy.packbits` does."""
    import torch
    from torch.nn.functional import pad

    rows = pad(bits.to(torch.uint8), (0, -bits.shape[1] % 8)).view(len(bits), -1, 8)
    places = (1 << torch.arange(7, -1, -1, device=bits.device)).to(torch.uint8)
    return (rows * places).sum(2, dtype=torch.uint8)


def sets(batches: Iterable[Batch], most: int | None) -> list[tuple[int, int]]:
    """Return of every run a hash, 64 bits, of the first examples of batches, all or at most so many, and their number.

    No more than a batch is in memory.
    """
    hashes: list[list[hashlib._Hash]] = []
    n = 0
    for batch in batches:
        some = batch.size if most is None else min(batch.size, most - n)
        tensors = [tensor[:, :some] for tensor in (batch.inputs, batch.targets)]
        hashes = hashes or [[hashlib.sha256() for _ in tensors] for _ in batch.targets]
        # Runs that share their examples share their memory.
        same = all(tensor.stride(0) == 0 for tensor in tensors)
        for place, own in enumerate(hashes[:1] if same else hashes):
            for one, tensor in zip(own, tensors, strict=True):
                one.update(tensor[place].cpu().contiguous().numpy().tobytes())
        if same:
            hashes = [[one.copy() for one in hashes[0]] for _ in hashes]
        n += some
    found = [hashlib.sha256(b"".join(one.digest() for one in own)).digest() for own in hashes]
    return [(int.from_bytes(digest[:8], "little", signed=True), n) for digest in found]
