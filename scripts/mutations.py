"""Changes of one line of a Python file: boundaries, constants, guards, dropped statements, words."""

from __future__ import annotations

import ast
import io
import itertools
import random
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type, tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC: dict[type, tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
_PAIRS = "min max,fmin fmax,minimum maximum,nanmin nanmax,argmin argmax,any all,floor ceil,median mean"
SWAPS = {a: b for pair in _PAIRS.split(",") for a, b in (pair.split(), reversed(pair.split()))}
# Keywords whose change has no effect that a result could show.
IDLE = {"frozen", "slots", "kw_only", "strict", "parents", "copy", "stacklevel", "maxsize", "repr", "eq"}


@dataclass(frozen=True)
class Mutant:
    """One change: the characters `start` to `end` of line `line` (from 1) become `new`."""

    line: int
    start: int
    end: int
    new: str
    kind: str

    def apply(self, source: str) -> str:
        """Return the source with the change made."""
        lines = source.splitlines(keepends=True)
        text = lines[self.line - 1]
        lines[self.line - 1] = text[: self.start] + self.new + text[self.end :]
        return "".join(lines)


class _Finder(ast.NodeVisitor):
    """Collects the mutants of one file. Columns of the tree count bytes: lines that are not ASCII are left out."""

    def __init__(self, source: str) -> None:
        self.lines = source.splitlines()
        self.found: list[Mutant] = []
        self.visit(ast.parse(source))

    def add(self, node: ast.AST, new: str, kind: str) -> None:
        first, last = (getattr(node, name) for name in ("lineno", "end_lineno"))
        if first == last and self.lines[first - 1].isascii():
            self.found.append(Mutant(first, node.col_offset, node.end_col_offset, new, kind))  # type: ignore[attr-defined]

    def between(self, left: ast.expr, right: ast.expr, change: tuple[str, str], kind: str) -> None:
        """Change the operator that stands between two operands of one line."""
        if left.end_lineno != right.lineno or not self.lines[right.lineno - 1].isascii():
            return
        start, end = left.end_col_offset or 0, right.col_offset
        old, new = change
        at = re.search(
            rf"(?<![\w<>=!*/]){re.escape(old)}(?![\w<>=*/])", self.lines[right.lineno - 1][start:end]
        )
        if at:
            self.found.append(Mutant(right.lineno, start + at.start(), start + at.end(), new, kind))

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip(
            [node.left, *node.comparators], node.ops, node.comparators, strict=False
        ):
            self.between(left, right, COMPARISONS[type(operator)], "comparison")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        change = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, change, "logic")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC:
            self.between(node.left, node.right, ARITHMETIC[type(node.op)], "arithmetic")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            self.add(node, ast.unparse(node.operand).join("()"), "sign")
        if not isinstance(node.op, ast.USub) or not isinstance(node.operand, ast.Constant):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add(node, str(not node.value), "constant")
        elif isinstance(node.value, int):
            self.add(node, str(node.value + 1), "constant")
            if node.value > 0:
                self.add(node, str(node.value - 1), "constant")
        elif isinstance(node.value, float):
            self.add(node, repr(2 * node.value or 1.0), "constant")

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in SWAPS and node.func.lineno == node.func.end_lineno:
            end = node.func.end_col_offset or 0
            self.found.append(Mutant(node.func.lineno, end - len(name), end, SWAPS[name], "swap"))
        if name in ("TypeVar", "ParamSpec", "NewType", "cast"):
            return
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in IDLE:
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.add(node.test, f"not ({ast.unparse(node.test)})", "guard")
            self.add(node.test, "False", "guard")
            self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.add(node.test, f"not ({ast.unparse(node.test)})", "guard")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.add(node, "pass", "dropped")
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(
            isinstance(target, ast.Name) and target.id in ("__all__", "VERSION") for target in node.targets
        ):
            return
        if not any(isinstance(target, ast.Name | ast.Tuple) for target in node.targets):
            self.add(node, "pass", "dropped")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.add(node, "pass", "dropped")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.add(node, "pass", "dropped")
        self.generic_visit(node)

    visit_Continue = visit_Break = visit_Delete = lambda self, node: self.add(node, "pass", "dropped")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        # Neither annotations nor decorators.
        for part in [*node.args.defaults, *node.args.kw_defaults, *node.body]:
            if part is not None:
                self.visit(part)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:
            self.visit(part)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave what stands in f-strings to `_words`: Python 3.11 gives no columns for it."""


def _words(source: str) -> Iterator[Mutant]:
    """Yield a change of one word of each sentence, and of each format in f-strings; docstrings are none."""
    tree = ast.parse(source)
    bare = {
        n.value.lineno
        for n in ast.walk(tree)
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        (line, start), (last, _) = token.start, token.end
        if token.type != tokenize.STRING or line != last or line in bare:
            continue
        formatted = "f" in token.string.split('"')[0].split("'")[0].lower()
        # In braces stands code: only what follows its colon is a format.
        fields = [m.span() for m in re.finditer(r"\{[^{}]*\}", token.string)] if formatted else []
        for first, end in fields:
            for place in re.finditer(r"\.(\d)(?=[efg%]\})", token.string[first:end]):
                at = start + first + place.start(1)
                yield Mutant(line, at, at + 1, str((int(place[1]) + 1) % 10), "format")
        words = [
            m for m in re.finditer(r"(?<![\\\w.])[a-z]{3,}(?![\w.])", token.string) if " " in token.string
        ]
        outside = [m for m in words if not any(first <= m.start() < end for first, end in fields)]
        for word in outside[:: max(1, len(outside) // 2)][:2]:
            yield Mutant(line, start + word.start(), start + word.end(), word[0] + "x", "word")


def mutants(source: str) -> list[Mutant]:
    """Return every change that is known, in order of lines."""
    return sorted({*_Finder(source).found, *_words(source)}, key=lambda m: (m.line, m.start, m.new))


def parses(source: str) -> bool:
    """Tell whether Python can read it: a word between the quotes of an f-string's field may not bear its change."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def sample(sources: dict[str, str], n: int, seed: int) -> list[tuple[str, Mutant]]:
    """Draw `n` changes: a line first, then one of its changes, so that long expressions count once."""
    lines: dict[tuple[str, int], list[Mutant]] = defaultdict(list)
    for name in sorted(sources):
        for mutant in mutants(sources[name]):
            lines[name, mutant.line].append(mutant)
    generator = random.Random(seed)
    places = sorted(lines)
    generator.shuffle(places)
    drawn = ((name, generator.choice(lines[name, line])) for name, line in places)
    return list(itertools.islice((d for d in drawn if parses(d[1].apply(sources[d[0]]))), n))
