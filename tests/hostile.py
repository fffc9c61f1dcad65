"""Hostile outputs folders: a small valid one, damaged and booby-trapped at random, and the commands that read it.

`python tests/hostile.py 300` tries 300 of them and prints what went wrong; `scripts/verify hostile` records it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

WORDS = ["task=grokking", "task.modulus=7", "model.width=8", "train.steps=20", "eval.every=2", "seed=0..2"]
WORDS += ["compute.width=2", "probes=[weights,gradients,curvature]", "probe.weights.every=2"]
WORDS += ["probe.curvature.every=4", "snapshots.at=[0,10,20]", "launcher=inline"]
EVIL = "from pathlib import Path\nPath({marker!r}).write_text('was run')\n"
# Whatever a command says, it is one of these.
CODES = (0, 2, 3, 4)


def run(*words: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run a command in this process; returns its exit code and what it printed."""
    from dynalab.cli.app import run as run_line

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(cwd or "."):
        code = run_line(list(words))
    return code, out.getvalue(), err.getvalue()


def make(outputs: Path) -> None:
    """Make a valid outputs folder: two shards, imported runs, analyses and a report."""
    table = outputs.with_name("table.csv")
    rows = [f"{run},{step},{1 / (step + 1)}" for run in "ab" for step in range(0, 50, 5)]
    table.write_text("\n".join(["name,step,loss", *rows]) + "\n")
    there = ("--outputs", str(outputs))
    for words in (
        ("import", str(table), "--run", "name", "--step", "step", "--name", "mine", *there),
        ("train", *WORDS, "-q", *there),
        ("analyze", "slingshot", *there),
        ("analyze", "hmm", "n_states=1", "baselines=false", "stability=false", *there),
        ("report", "--name", "page", *there),
    ):
        code, _, err = run(*words)
        assert code == 0, (words, err)


def commands(outputs: Path, ensemble: Path) -> Iterator[tuple[str, ...]]:
    """Yield the commands that are tried on a hostile folder, those that remove last."""
    digest, there = ensemble.name[-10:], ("--outputs", str(outputs))
    yield ("runs", "list", *there)
    yield ("runs", "list", "--json", *there)
    yield ("runs", "list", "-e", *there)
    yield ("runs", "list", "-a", "--json", *there)
    yield ("runs", "show", "--json", *there)
    yield ("runs", "show", digest, *there)
    yield ("runs", "show", "slingshot", *there)
    yield ("runs", "list", "-f", "task=grokking status=done optimizer.lr<1", *there)
    yield ("analyze", "periods", digest, *there)
    yield ("analyze", "hmm", "n_states=1", "baselines=false", "stability=false", "mine", *there)
    yield ("analyze", "slingshot", digest, "--json", *there)
    yield ("analyze", "eos", digest, *there)
    yield ("analyze", "variance", digest, *there)
    yield ("report", digest, "--name", "page", *there)
    yield ("report", "mine", *there)
    yield ("runs", "export", digest, "--to", str(outputs.with_name("export.csv")), *there)
    yield ("runs", "diff", digest, "mine", *there)
    yield ("train", *WORDS, "--dry-run", *there)
    yield ("train", *WORDS, "-q", *there)
    yield ("train", *WORDS, "train.steps=24", "-q", "--json", *there)
    yield ("runs", "rm", f"{digest}/s0002", "--yes", *there)
    yield ("runs", "rm", f"{ensemble}/", "--yes", *there)
    yield ("runs", "rm", "@all", "--yes", *there)


# What may stand in a JSON or YAML document in the place of anything else.
def values(rng: random.Random, canary: Path) -> Any:
    deep: Any = []
    for _ in range(rng.choice([5, 90])):
        deep = [deep]
    return rng.choice(
        [
            *(None, True, False, -1, 0, 1, 3, 7.5, 2**31, 2**63, 10**30, -(10**18), 1e308, -0.0, 1e-320),
            *(
                "",
                ".",
                "..",
                "/",
                "~",
                "a\0b",
                "\n",
                "$x_{$",
                "s0000",
                "done",
                "every-2",
                "x" * 5000,
                "é" * 90,
            ),
            *(
                "../../canary/precious",
                str(canary / "precious"),
                "\x1b]0;evil\x07\x1b[2J",
                "\u202egnp.exe",
                "\ud800",
            ),
            *(
                "2020-01-01",
                "nan",
                "1e5",
                "cuda:9",
                "grokking",
                "mlm",
                "__init__",
                "evil",
                [str(canary / "evil")],
            ),
            *([], {}, [[]], [None], [1, -1], ["a", 2], {"a": {}}, {"name": "evil"}, {"": 1}, deep),
        ]
    )


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a document."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [item for key, value in pairs for item in [(tree, key), *places(value)]]


def harm_tree(rng: random.Random, tree: Any, canary: Path) -> Any:
    for _ in range(rng.choice([1, 1, 2, 5])):
        found = places(tree)
        if not found:
            return values(rng, canary)
        container, key = rng.choice(found)
        what = rng.random()
        if what < 0.15 and isinstance(container, dict):
            del container[key]
        elif what < 0.25 and isinstance(container, dict):
            container[rng.choice(["newer", "", "name", "../x", "\x1b[1m"])] = values(rng, canary)
        elif what < 0.3 and isinstance(container, list):
            container.append(container[key])
        else:
            container[key] = values(rng, canary)
    return tree


TEXTS = [
    *("", "{", "null", "[]", "3", '"text"', "[" * 100_000, '{"a":' * 5_000, "9" * 5_000, "\ufeff{}"),
    *('{"parts": ["."]}', '{"schema_version": NaN}', '{"steps": 1e999}', "a: &a [*a]\n"),
    "!!python/object/apply:os.system [touch evil]\n",
    "eval: {every: 2}\nlevels:\n  ? [a]\n  : b\n",
    # The billion laughs, by lists and by merged mappings.
    "a: &a0 [1]\n"
    + "".join(f"b{n}: &a{n + 1} [{(f'*a{n}, ' * 9)}]\n" for n in range(20))
    + "eval:\nlevels:\n",
    "a: &a0 {x: 1}\n"
    + "".join(f"b{n}: &a{n + 1} {{<<: [{f'*a{n}, ' * 9}]}}\n" for n in range(12))
    + "eval:\nlevels:\n",
]


def harm_document(rng: random.Random, path: Path, canary: Path) -> None:
    text = path.read_bytes()
    if rng.random() < 0.15:
        path.write_text(rng.choice(TEXTS))
    elif rng.random() < 0.15:
        harm_bytes(rng, path)
    elif path.suffix == ".yaml":
        tree = harm_tree(rng, yaml.safe_load(text), canary)
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
    else:
        path.write_text(json.dumps(harm_tree(rng, json.loads(text or b"{}"), canary)))


def harm_bytes(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    what = rng.random()
    if what < 0.3:
        data = data[: rng.randrange(len(data) + 1)]
    elif what < 0.4:
        data = bytearray(rng.randbytes(rng.choice([0, 7, 300])))
    else:
        for _ in range(rng.choice([1, 8, 40])):
            if data:
                # Heads are where the sense is.
                data[rng.randrange(min(len(data), rng.choice([16, 200, len(data)])))] = rng.randrange(256)
    path.write_bytes(data)


def harm_series(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[8:10], "little")
    text = data[10 : 10 + size].decode("latin1")
    kinds = [("'<f8'", f"'{kind}'") for kind in ("|O", "V0", "S8", "<U9", "<c16")]
    shapes = [("(2,)", shape) for shape in ("(-1,)", "(2**40,)", "(3,)", "(1099511627776,)", "()", "(1, 2)")]
    rows = [("'shape': (", f"'shape': ({rows}") for rows in ("-", "9e9, ", "99999999999")]
    names = [("'step'", "'stop'"), ("'wall'", "''"), ("train_loss", "\x1b[2J$_{"), ("train_loss", "step")]
    other = [("'<i8'", "'<f8'"), ("'<i8'", "'M8[s]'"), ("'descr': [", "'descr': [" + "[" * 900)]
    old, new = rng.choice([*kinds, *shapes, *rows, *names, *other, ("False", "__import__('os')")])
    body = text.replace(old, new, rng.choice([1, -1])).rstrip().ljust(size - 1)[: 2**16 - 2] + "\n"
    path.write_bytes(data[:8] + len(body).to_bytes(2, "little") + body.encode("latin1") + data[10 + size :])


def harm_safetensors(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    what = rng.random()
    if what < 0.2:
        path.write_bytes(rng.choice([2**63, 2**40, 0, 5]).to_bytes(8, "little") + data[8:])
        return
    name = rng.choice(sorted(header))
    if what < 0.4:
        header[name] = {**header[name], "dtype": rng.choice(["F16", "X9", "I64", 3])}
    elif what < 0.6:
        header[name] = {**header[name], "data_offsets": rng.choice([[0, 8], [8, 0], [0, 2**60], [-8, 8]])}
    elif what < 0.8:
        header[name] = {**header[name], "shape": rng.choice([[2**40, 2**40], [-1], [], [0], "2"])}
    else:
        header["\x1b[1m"] = header.pop(name)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def replace_by_link(rng: random.Random, path: Path, canary: Path) -> None:
    """Put a link in the place of a file or folder; what was there now lies outside, and must stay as it is."""
    what = rng.random()
    away = canary / f"moved-{rng.randrange(10**6)}" / path.name
    away.parent.mkdir()
    if what < 0.6:
        shutil.move(path, away)
        path.symlink_to(away)
        return
    shutil.move(path, away)
    if what < 0.7:
        path.symlink_to(canary / "precious")
    elif what < 0.8:
        path.symlink_to(path)
    elif what < 0.85:
        path.symlink_to("/dev/zero")
    elif what < 0.9:
        os.mkfifo(path)
    elif what < 0.95:
        path.mkdir()
    else:
        path.symlink_to(canary / "nothing")


STRANGERS = [
    *(
        ".DS_Store",
        "Thumbs.db",
        "shard-0000-0001-2",
        "step-00000010.safetensors",
        "every-2.npy",
        "metrics.parquet",
    ),
    *("\x1b[31mred\x07", "new\nline", "\u202egnp", "x" * 250, "shard-" + "9" * 200 + "-1", "step-0000000²"),
    *(
        b"\xff\xfe".decode(errors="surrogateescape"),
        "config.yaml",
        "lock",
        "split.json",
        "-rf",
        "series",
        ".tmp",
    ),
    *(
        "step-99999999999999999999",
        "every-0.npy",
        "log.npy",
        "forced-s0000.npy",
        "hmm-0123456789",
        "x-0123456789",
    ),
]


def add_stranger(rng: random.Random, outputs: Path, canary: Path) -> None:
    folders = [path for path in sorted(outputs.rglob("*")) if path.is_dir() and not path.is_symlink()]
    path = rng.choice(folders or [outputs]) / rng.choice(STRANGERS)
    if os.path.lexists(path):
        return
    what = rng.random()
    if what < 0.3:
        path.mkdir()
        (path / "config.yaml").write_text(rng.choice(TEXTS))
    elif what < 0.5:
        path.symlink_to(rng.choice([canary, canary / "precious", path.parent]))
    else:
        path.write_text(rng.choice(['{"parts": ["../../../canary/precious"]}', "", "evil"]))


def add_copy(rng: random.Random, outputs: Path) -> None:
    path = rng.choice([path for path in sorted(outputs.rglob("*")) if not path.is_symlink()])
    stem, dot, suffix = path.name.partition(".")
    copy = path.with_name(
        rng.choice(
            [f"{stem} (1){dot}{suffix}", f"{path.name}~", f"Copy of {path.name}", f"copy-of-{path.name}"]
        )
    )
    if not os.path.lexists(copy) and len(copy.name) < 250:
        (shutil.copytree if path.is_dir() else shutil.copy)(
            path, copy, **({"symlinks": True} if path.is_dir() else {})
        )


def add_traps(rng: random.Random, outputs: Path, canary: Path) -> None:
    """Name the folder of evil plug-ins wherever a folder may be named."""
    for path in outputs.glob("grokking/*/shard-*/run.json"):
        with contextlib.suppress(ValueError, TypeError, OSError, RecursionError):
            path.write_text(json.dumps({**json.loads(path.read_bytes()), "folders": [str(canary / "evil")]}))
    for path in outputs.glob("grokking/*/config.yaml"):
        with contextlib.suppress(yaml.YAMLError, TypeError, OSError, ValueError, LookupError, RecursionError):
            tree = yaml.safe_load(path.read_bytes())
            group = rng.choice(["task", "model", "optimizer"])
            source = hashlib.sha256((canary / "evil/task/evil.py").read_bytes()).hexdigest()[:16]
            tree[group]["name"] = rng.choice(
                [tree[group]["name"], "evil", "../evil", str(canary / "evil/task/evil")]
            )
            path.write_text(yaml.safe_dump({**tree, "sources": {group: source}}, sort_keys=False))


def harm(rng: random.Random, outputs: Path, canary: Path) -> str:
    """Do one harmful thing to an outputs folder, and return what."""
    everything = [path for path in sorted(outputs.rglob("*")) if not path.is_symlink()]
    files = [path for path in everything if path.is_file()]
    folders = [path for path in everything if path.is_dir()]

    def document(path: Path) -> None:
        harm_document(rng, path, canary)

    def split(path: Path) -> None:
        parts = [values(rng, canary) for _ in range(rng.choice([1, 2]))]
        (path / "split.json").write_text(json.dumps({"parts": parts}))

    def lock(path: Path) -> None:
        owner = {key: values(rng, canary) for key in ("host", "boot", "pid", "started")}
        (path / "lock").write_text(json.dumps(owner))

    kinds: dict[str, tuple[list[Path], Callable[[Path], None]]] = {
        "document": ([path for path in files if path.suffix in (".json", ".yaml")], document),
        "run.json": ([path for path in files if path.name == "run.json"], document),
        "config.yaml": ([path for path in files if path.name == "config.yaml"], document),
        "series": ([path for path in files if path.suffix == ".npy"], lambda path: harm_series(rng, path)),
        "tensors": (
            [path for path in files if path.suffix == ".safetensors"],
            lambda path: harm_safetensors(rng, path),
        ),
        "bytes": (files, lambda path: harm_bytes(rng, path)),
        "link": (everything, lambda path: replace_by_link(rng, path, canary)),
        "split": ([path for path in folders if path.name.startswith("shard-")], split),
        "lock": ([path for path in folders if "grokking" in path.parts], lock),
        "stranger": ([outputs], lambda path: add_stranger(rng, path, canary)),
        "copy": ([outputs], lambda path: add_copy(rng, path)),
        "trap": ([outputs], lambda path: add_traps(rng, path, canary)),
    }
    name = rng.choice(sorted(kinds))
    chosen, act = kinds[name]
    if not chosen:
        return f"{name} of nothing"
    path = rng.choice(chosen)
    # What was harmed before may not be harmed again.
    errors = (ValueError, TypeError, AttributeError, LookupError, OSError, RecursionError, yaml.YAMLError)
    with contextlib.suppress(*errors):
        act(path)
    return f"{name} of {path.relative_to(outputs)}"


def state(folder: Path) -> dict[str, Any]:
    """Return name -> what lies there, to see that nothing was touched."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mtime_ns,
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(folder.rglob("*"))
    }


def try_number(number: int, base: Path, work: Path, most: int | None = None) -> list[str]:
    """Make the hostile folder of a number, run the commands, and return what they did wrong.

    Args:
        number: Seed of everything.
        base: A folder that `make` made.
        work: A folder that is not there yet.
        most: So many of the commands; None: all.
    """
    rng = random.Random(number)
    outputs, canary = work / "outputs", work / "canary"
    shutil.copytree(base, outputs)
    (canary / "precious/shard-0000-0000-1").mkdir(parents=True)
    (canary / "precious/config.yaml").write_text("defaults: [_self_]\n")
    (canary / "precious/thesis.txt").write_text("three years of work")
    marker = work / "marker"
    for group in ("task", "model", "optimizer"):
        for name in ("evil", "grokking", "gromov", "adamw"):
            (canary / "evil" / group).mkdir(parents=True, exist_ok=True)
            (canary / "evil" / group / f"{name}.py").write_text(EVIL.format(marker=str(marker)))
    (ensemble,) = outputs.glob("grokking/*")
    done = [harm(rng, outputs, canary) for _ in range(rng.choice([1, 1, 2, 3, 6]))]
    before = state(canary)
    wrong = []
    lines = list(commands(outputs, ensemble))
    chosen = sorted(rng.sample(range(len(lines)), most or len(lines)))
    for words in [lines[place] for place in chosen]:
        code, out, err = run(*words, cwd=work)
        line = f"{number} ({'; '.join(done)}): {' '.join(words[:-2])} -> {code}"
        if code not in CODES or "Traceback" in out + err or "traceback in" in err:
            wrong.append(f"{line}: {err[-300:]}")
        if any(not (letter.isprintable() or letter in "\n\t") for letter in out + err):
            wrong.append(f"{line}: letters that no terminal should get")
        if "--json" in words and code == 0:
            json.loads(out)
        if marker.exists():
            wrong.append(f"{line}: evil was run")
            break
        if state(canary) != before:
            changed = sorted({*before.items()} ^ {*state(canary).items()})
            wrong.append(f"{line}: touched {sorted({name for name, _ in changed})[:4]}")
            break
    return wrong


def main() -> int:
    """Try many numbers and print what went wrong."""
    numbers = range(*map(int, sys.argv[1:])) if len(sys.argv) > 1 else range(300)
    n_wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "base").mkdir()
        make(Path(folder, "base", "outputs"))
        for number in numbers:
            wrong = try_number(number, Path(folder, "base", "outputs"), Path(folder, str(number)))
            shutil.rmtree(Path(folder, str(number)))
            n_wrong += bool(wrong)
            print("\n".join(wrong), end="\n" if wrong else "", flush=True)
    print(f"{len(numbers) - n_wrong} of {len(numbers)} hostile folders do no harm")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
