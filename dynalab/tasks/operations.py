"""The binary operations whose tables grokking learns.

The twelve of Power et al. 2022 ("Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets",
arXiv 2201.02177, appendix A.1): nine modulo a number, three in the symmetric group S5; and multiplication
modulo a number, which the paper's figure 2 shows beside them. Numpy only, so that the command line may ask
for sizes.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynalab.core.errors import ConfigError

Ints = NDArray[np.int64]


class Table(NamedTuple):
    """Every example of one operation.

    Attributes:
        pairs: Shape (N, 2), the two operands, in lexicographic order.
        results: Shape (N,), what the operation makes of them.
        n_symbols: How many distinct symbols operands and results are drawn from.
    """

    pairs: Ints
    results: Ints
    n_symbols: int


class Cyclic(NamedTuple):
    """An operation as the addition of places on a circle: operation(left[i], right[j]) = results[(i + j) % n].

    Attributes:
        left: Shape (n,), the first operand at every place.
        right: Shape (n,), the second one.
        results: Shape (n,), the result.
    """

    left: Ints
    right: Ints
    results: Ints


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        formula: How papers write it, in ASCII; accepted in place of the name.
        table: Function from the modulus, which means nothing in S5, to the table.
    """

    formula: str
    table: Callable[[int], Table]


def _grid(n: int) -> Ints:
    """Return all pairs of n symbols in lexicographic order, shape (n * n, 2)."""
    first, second = np.divmod(np.arange(n * n, dtype=np.int64), n)
    return np.stack([first, second], axis=1)


def _polynomial(value: Callable[[Ints, Ints], Ints]) -> Callable[[int], Table]:
    """Make the table of an integer polynomial modulo a number (exact in int64)."""

    def table(modulus: int) -> Table:
        pairs = _grid(modulus)
        return Table(pairs, value(pairs[:, 0], pairs[:, 1]) % modulus, modulus)

    return table


def is_prime(n: int) -> bool:
    """Tell whether n is prime, by trial division."""
    return n >= 2 and all(n % d for d in range(2, int(n**0.5) + 1))


def _inverses(modulus: int) -> Ints:
    """Return the inverse of every residue but 0 (whose place holds 0), shape (modulus,)."""
    if not is_prime(modulus):
        nearest = min(
            (n for n in range(2, 2 * modulus + 3) if is_prime(n)), key=lambda n: (abs(n - modulus), n)
        )
        raise ConfigError(
            f"task.modulus={modulus}: division needs a prime modulus, since other residues have no inverse; "
            f"the nearest prime is {nearest}"
        )
    return np.array([0] + [pow(y, -1, modulus) for y in range(1, modulus)], dtype=np.int64)


def _divide(modulus: int) -> Table:
    inverse = _inverses(modulus)
    pairs = _grid(modulus)
    pairs = pairs[pairs[:, 1] != 0]
    return Table(pairs, pairs[:, 0] * inverse[pairs[:, 1]] % modulus, modulus)


def _divide_or_subtract(modulus: int) -> Table:
    inverse = _inverses(modulus)
    pairs = _grid(modulus)
    x, y = pairs[:, 0], pairs[:, 1]
    return Table(pairs, np.where(y % 2 == 1, x * inverse[y], x - y) % modulus, modulus)


def permutations() -> Ints:
    """Return the 120 permutations of five things in lexicographic order, shape (120, 5)."""
    return np.array(list(itertools.permutations(range(5))), dtype=np.int64)


@lru_cache(maxsize=1)
def _s5() -> tuple[Ints, Ints]:
    """Return S5's multiplication table (120, 120), where (x * y)(i) = x(y(i)), and the inverses (120,)."""
    every = permutations()
    code = every @ 5 ** np.arange(5)
    lookup = np.full(int(code.max()) + 1, -1, dtype=np.int64)
    lookup[code] = np.arange(len(every))
    products = lookup[every[:, every] @ 5 ** np.arange(5)]
    # The identity is symbol 0, so x * x^-1 is the row's least entry.
    return products, np.argmin(products, axis=1)


def _in_s5(value: Callable[[Ints, Ints, Ints, Ints], Ints]) -> Callable[[int], Table]:
    def table(modulus: int) -> Table:
        products, inverses = _s5()
        pairs = _grid(len(products))
        return Table(pairs, value(pairs[:, 0], pairs[:, 1], products, inverses), len(products))

    return table


OPERATIONS: dict[str, Operation] = {
    "add": Operation("x+y", _polynomial(lambda x, y: x + y)),
    "subtract": Operation("x-y", _polynomial(lambda x, y: x - y)),
    "divide": Operation("x/y", _divide),
    "divide_or_subtract": Operation("x/y if y odd else x-y", _divide_or_subtract),
    "sum_of_squares": Operation("x^2+y^2", _polynomial(lambda x, y: x**2 + y**2)),
    "quadratic": Operation("x^2+xy+y^2", _polynomial(lambda x, y: x**2 + x * y + y**2)),
    "quadratic_plus_x": Operation("x^2+xy+y^2+x", _polynomial(lambda x, y: x**2 + x * y + y**2 + x)),
    "cubic_xy": Operation("x^3+xy", _polynomial(lambda x, y: x**3 + x * y)),
    "cubic_xy2": Operation("x^3+xy^2+y", _polynomial(lambda x, y: x**3 + x * y**2 + y)),
    "s5": Operation("x.y", _in_s5(lambda x, y, product, inverse: product[x, y])),
    "s5_conjugate": Operation(
        "x.y.x^-1", _in_s5(lambda x, y, product, inverse: product[product[x, y], inverse[x]])
    ),
    "s5_sandwich": Operation("x.y.x", _in_s5(lambda x, y, product, inverse: product[product[x, y], x])),
    "multiply": Operation("x*y", _polynomial(lambda x, y: x * y)),
}


def _plain(text: str) -> str:
    """Spell a formula the one way that the aliases are kept in."""
    text = re.sub(r"\s+", "", text.lower()).replace("**", "^").replace("\u00b2", "^2").replace("\u00b3", "^3")
    # A centred dot is the group's product; with three factors a star can mean nothing else.
    text = text.replace("\u00b7", ".").replace("^{-1}", "^-1").replace("\u207b\u00b9", "^-1")
    return text.replace("*", ".") if re.fullmatch(r"x\*y\*x(\^-1)?", text) else text.replace("x*y", "xy")


_ALIASES = {_plain(operation.formula): name for name, operation in OPERATIONS.items()} | {"xy": "multiply"}


def canonical(operation: str) -> str:
    """Return the name of an operation given by name or by a formula, `x^2+xy+y^2` (spaces, `**` and `*` are free).

    Raises:
        ConfigError: There is no such operation; names the nearest one.
    """
    if operation in OPERATIONS:
        return operation
    name = _ALIASES.get(_plain(operation))
    if name is not None:
        return name
    near = difflib.get_close_matches(operation, [*OPERATIONS, *_ALIASES], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    legal = ", ".join(f"{name} ({record.formula})" for name, record in OPERATIONS.items())
    raise ConfigError(f"task.operation={operation} is not known{hint}\nlegal: {legal}")


@lru_cache(maxsize=8)
def table(operation: str, modulus: int) -> Table:
    """Return the table of an operation; its arrays are shared and read-only. Division needs a prime modulus."""
    result = OPERATIONS[operation].table(modulus)
    result.pairs.setflags(write=False)
    result.results.setflags(write=False)
    return result


# The operations that add places on a circle, and whether the places of their second operand run backwards.
_ADDITIVE = {"add": False, "subtract": True}
_MULTIPLICATIVE = {"multiply": False, "divide": True}
CYCLIC = (*_ADDITIVE, *_MULTIPLICATIVE)


@lru_cache(maxsize=8)
def cyclic(operation: str, modulus: int) -> Cyclic:
    """Return one of the operations `CYCLIC` as the addition of places on a circle; its arrays are shared.

    Of multiplication and division these are the powers of the least primitive root; 0 has no place.

    Raises:
        ConfigError: Multiplication or division modulo a number that is not prime.
    """
    if operation in _ADDITIVE:
        results = np.arange(modulus, dtype=np.int64)
        backwards = _ADDITIVE[operation]
    else:
        if not is_prime(modulus):
            raise ConfigError(
                f"task.modulus={modulus}: the probe fourier needs a prime modulus where operands are multiplied, for "
                "only there they go round one circle"
            )
        powers = ([pow(root, i, modulus) for i in range(modulus - 1)] for root in range(1, modulus))
        results = np.array(next(row for row in powers if len({*row}) == modulus - 1), dtype=np.int64)
        backwards = _MULTIPLICATIVE[operation]
    return Cyclic(results, np.roll(results[::-1], 1) if backwards else results, results)
