"""Arithmetic of names, as a sheet has it: `optimizer.lr * optimizer.weight_decay`. Nothing else can be said in it."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError

LONGEST = 300
_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    **{name: getattr(math, name) for name in ("sqrt", "log", "log2", "log10", "exp")},
    "abs": abs,
    "min": min,
    "max": max,
}


class Expression:
    """An arithmetic expression of names with dots; numbers, + - * / **, sqrt log log2 log10 exp abs min max.

    Attributes:
        text: As it was written.
        names: The names in it.
    """

    def __init__(self, text: str) -> None:
        """Read an expression.

        Raises:
            ConfigError: It is none, or has anything else in it.
        """
        self.text, self.names = text, dict[str, None]()
        if len(text) > LONGEST:
            raise ConfigError(f"an expression of {len(text)} characters is too long: at most {LONGEST}")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"{text!r} is no arithmetic expression") from error
        self._check(self._tree)

    def _check(self, node: ast.expr) -> None:
        """Refuse what is no arithmetic, and note the names."""
        match node:
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                return
            case ast.Name() | ast.Attribute() if name := _dotted(node):
                self.names[name] = None
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
                self._check(left)
                self._check(right)
            case ast.UnaryOp(op, operand) if type(op) in _OPERATORS:
                self._check(operand)
            case ast.Call(ast.Name(function), [_, *_] as given, []) if function in _FUNCTIONS:
                for item in given:
                    self._check(item)
            case _:
                part = ast.get_source_segment(self.text.strip(), node) or self.text
                raise ConfigError(
                    f"{part!r} is no arithmetic: numbers, names, + - * / ** and {' '.join(_FUNCTIONS)} are"
                )

    def value(self, values: Mapping[str, Any]) -> float | None:
        """Return what it comes to; None where a name has no value, or there is no such number.

        Raises:
            ConfigError: A name is not there, or its value is no number.
        """
        known: dict[str, float] = {}
        for name in self.names:
            if name not in values:
                hint = did_you_mean(name, values)
                raise ConfigError(f"{name} in {self.text!r}: no such name{hint}; there are {listing(values)}")
            value = values[name]
            if value is None:
                return None
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"{name} in {self.text!r} is {value!r}, and no number")
            known[name] = float(value)
        try:
            found = float(_value(self._tree, known))
        except (ArithmeticError, ValueError, TypeError):
            return None
        return found if math.isfinite(found) else None


def _dotted(node: ast.expr) -> str:
    """Return a name with dots; nothing of anything else, or of what hides itself behind underscores."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before and not node.attr.startswith("_") else ""
    return node.id if isinstance(node, ast.Name) and not node.id.startswith("_") else ""


def _value(node: ast.expr, values: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value):
            return float(value)  # type: ignore[arg-type]
        case ast.BinOp(left, op, right):
            return _OPERATORS[type(op)](_value(left, values), _value(right, values))
        case ast.UnaryOp(op, operand):
            return _OPERATORS[type(op)](_value(operand, values))
        case ast.Call(ast.Name(function), given):
            return _FUNCTIONS[function](*(_value(item, values) for item in given))
        case _:
            return values[_dotted(node)]
