"""Networks on two tables: the sums over rows and over examples, and what is kept of a batch from update to update."""

from __future__ import annotations

import gc

import pytest
import torch

from dynalab.models.nets import two_tables

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def drawn(n: int, count: int, classes: int, width: int) -> list[torch.Tensor]:
    """Return tables, a weight and pairs of two runs, and a gradient by their outputs."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(n, width), (n, width), (classes, width), (count, classes)]
    left, right, output, gradient = (torch.randn(2, *shape, generator=generator) for shape in shapes)
    return [left, right, output, torch.randint(n, (2, count, 2), generator=generator), gradient]


@pytest.mark.parametrize("activation", ["square", "relu"])
@pytest.mark.parametrize("size", [(5, 7, 3, 4), (23, 200, 23, 33), (97, 40, 97, 16)])
def test_sums_have_the_bits_of_one_addition_after_another(size, activation, monkeypatch):
    left, right, output, pairs, gradient = drawn(*size)
    for block in (two_tables.BLOCK, 70 * size[3]):
        monkeypatch.setattr(two_tables, "BLOCK", block)
        outputs = two_tables.outputs_of(left, right, output, pairs, activation)
        found = two_tables.gradients_of(left, right, output, pairs, activation, gradient)
        for run, (a, b) in enumerate(pairs.movedim(-1, 1)):
            hidden = left[run][a] + right[run][b]
            active = hidden.square() if activation == "square" else hidden.relu()
            torch.testing.assert_close(outputs[run], active @ output[run].t(), **CLOSE)
            back = [part @ output[run] for part in gradient[run].split(max(block // size[3], 1))]
            moved = torch.cat(back) * (2 * hidden if activation == "square" else hidden > 0)
            for table, symbols in zip(found[:2], (a, b), strict=True):
                # Rows that no example has are among them.
                wanted = torch.zeros_like(table[run])
                for symbol, row in zip(symbols.tolist(), moved, strict=True):
                    wanted[symbol] += row
                assert torch.equal(table[run], wanted)
            torch.testing.assert_close(found[2][run], gradient[run].t() @ active, **CLOSE)


def test_places_are_those_of_the_pairs_as_they_are_now_and_go_with_them():
    left, right, output, pairs, _ = drawn(5, 7, 3, 4)
    before = two_tables.outputs_of(left, right, output, pairs, "relu")
    places = two_tables.places_of(pairs, 5, 4)
    assert two_tables.places_of(pairs, 5, 4) is places and two_tables.places_of(pairs, 6, 4) is not places
    pairs.copy_(pairs.flip(1))
    after = two_tables.outputs_of(left, right, output, pairs, "relu")
    torch.testing.assert_close(after, before.flip(1), **CLOSE)
    held = len(two_tables._KNOWN)
    del pairs
    gc.collect()
    assert len(two_tables._KNOWN) < held
