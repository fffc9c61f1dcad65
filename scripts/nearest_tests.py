"""Which files of tests belong to a module: those that import it, then those that import or name what uses it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    """Return the modules of dynalab, and the helpers of tests, that a file names in its imports."""
    own = path.relative_to(ROOT).with_suffix("").parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = own[: len(own) - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def nearest(path: str) -> tuple[str, ...]:
    """Return the files of tests that belong to a module, nearest first.

    Those that import it (or a helper that does), then those that import what imports it, then those that name its
    package or itself in a string, as a command would.
    """
    module = _module(ROOT / path)
    users = {_module(p) for p in (ROOT / "dynalab").rglob("*.py") if module in _imports(p)} | {
        module.rpartition(".")[0]
    }
    words = {module.rpartition(".")[2], module.split(".")[-2]} - {"dynalab", "analysis", "store", "report"}
    named = re.compile(rf"\"(?:[^\"\n]* )?(?:{'|'.join(map(re.escape, words)) or 'none'})[\" ]")
    ranked = []
    for test in sorted((ROOT / "tests").glob("test_*.py")):
        direct = _imports(test)
        for helper in direct & {
            name.removeprefix("tests.") for name in map(_module, (ROOT / "tests").rglob("*.py"))
        }:
            direct |= _imports(ROOT / f"tests/{helper.replace('.', '/')}.py")
        text = test.read_text()
        rank = 0 if module in direct else 1 if direct & users else 2 if named.search(text) else 3
        if rank < 3:
            # Those that are called like the module or its package first; those that train or run commands take longest.
            like = any(word in test.stem for word in module.split(".")[1:])
            runs = len(re.findall(r"\b(?:train|here|cli|run_cli)\(", text))
            ranked.append((rank, runs > 0 and not like, not like, runs, f"tests/{test.name}"))
    return tuple(name for *_, name in sorted(ranked))
