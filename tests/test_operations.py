"""The operations against their formulas, pair by pair in plain Python, and S5 against the group axioms."""

import itertools

import numpy as np
import pytest

from dynalab.errors import ConfigError
from dynalab.tasks import operations
from dynalab.tasks.operations import OPERATIONS


def _quotient(x, y, p):
    return next(c for c in range(p) if c * y % p == x)


FORMULAS = {
    "add": lambda x, y, p: (x + y) % p,
    "subtract": lambda x, y, p: (x - y) % p,
    "divide": _quotient,
    "divide_or_subtract": lambda x, y, p: _quotient(x, y, p) if y % 2 else (x - y) % p,
    "sum_of_squares": lambda x, y, p: (x * x + y * y) % p,
    "quadratic": lambda x, y, p: (x * x + x * y + y * y) % p,
    "quadratic_plus_x": lambda x, y, p: (x * x + x * y + y * y + x) % p,
    "cubic_xy": lambda x, y, p: (x * x * x + x * y) % p,
    "cubic_xy2": lambda x, y, p: (x * x * x + x * y * y + y) % p,
    "multiply": lambda x, y, p: (x * y) % p,
}


@pytest.mark.parametrize("modulus", [5, 13])
@pytest.mark.parametrize("name", FORMULAS)
def test_modular_tables_follow_their_formulas(name, modulus):
    pairs, results, n_symbols = operations.table(name, modulus)
    seconds = range(1, modulus) if name == "divide" else range(modulus)
    assert [tuple(pair) for pair in pairs.tolist()] == list(itertools.product(range(modulus), seconds))
    assert results.tolist() == [FORMULAS[name](x, y, modulus) for x, y in pairs.tolist()]
    assert n_symbols == modulus
    assert pairs.dtype == results.dtype == np.int64


def test_there_are_twelve_operations_and_multiplication():
    assert len(OPERATIONS) == 13
    assert set(OPERATIONS) == {*FORMULAS, "s5", "s5_conjugate", "s5_sandwich"}


def _s5_product():
    pairs, results, n_symbols = operations.table("s5", 2)
    assert n_symbols == 120
    assert len(pairs) == 14_400
    return results.reshape(120, 120)


def test_s5_is_a_group():
    product = _s5_product()
    every = np.arange(120)
    assert (np.sort(product, axis=0) == every[:, None]).all()
    assert (np.sort(product, axis=1) == every).all()
    identity = int(np.flatnonzero((product == every).all(axis=1))[0])
    assert (product[:, identity] == every).all()
    x, y, z = np.random.default_rng(0).integers(120, size=(3, 20_000))
    assert (product[product[x, y], z] == product[x, product[y, z]]).all()
    assert (product != product.T).any()


def test_s5_composes_permutations():
    product, every = _s5_product(), operations.permutations()
    for x, y in np.random.default_rng(1).integers(120, size=(500, 2)):
        assert every[product[x, y]].tolist() == [every[x][every[y][i]] for i in range(5)]


def test_s5_conjugate_and_sandwich():
    product = _s5_product()
    inverse = [int(np.flatnonzero(product[x] == 0)[0]) for x in range(120)]
    for name, last in (("s5_conjugate", inverse), ("s5_sandwich", range(120))):
        results = operations.table(name, 2).results.reshape(120, 120)
        for x, y in np.random.default_rng(2).integers(120, size=(500, 2)):
            assert results[x, y] == product[product[x, y], last[x]]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *((record.formula, name) for name, record in OPERATIONS.items()),
        *((name, name) for name in OPERATIONS),
        ("x + y", "add"),
        ("X-Y", "subtract"),
        ("x**2 + x*y + y**2", "quadratic"),
        ("x\u00b3 + xy\u00b2 + y", "cubic_xy2"),
        ("xy", "multiply"),
        ("x*y*x", "s5_sandwich"),
        ("x*y*x^-1", "s5_conjugate"),
        ("x\u00b7y", "s5"),
    ],
)
def test_formulas_are_names(given, name):
    assert operations.canonical(given) == name


def test_unknown_operation_names_the_nearest():
    with pytest.raises(ConfigError, match=r"task\.operation=substract.*did you mean subtract\?"):
        operations.canonical("substract")


@pytest.mark.parametrize("name", ["divide", "divide_or_subtract"])
def test_division_needs_a_prime(name):
    with pytest.raises(ConfigError, match=r"task\.modulus=15.*prime.*13"):
        operations.table(name, 15)


def test_tables_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        operations.table("add", 7).results[0] = 3
