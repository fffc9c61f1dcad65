"""Applies changes of one line to a copy of the source, one at a time, and runs the tests that belong to each."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from mutations import sample
from nearest_tests import ROOT, nearest

LIST = ROOT / "tests/mutants.toml"
# Seconds of CPU: a test that takes EACH is taken for an endless loop, as are tests that wait for WAIT times what they
# may spend.
SECONDS, EACH, WAIT = 40.0, 30.0, 20.0
LIBRARIES = (
    *("torch", "pandas", "scipy.stats", "sklearn.cluster", "statsmodels.api", "pyarrow.parquet"),
    *("hydra", "rich.console", "click", "matplotlib.figure"),
)


@dataclass(frozen=True)
class Trial:
    """One change to try: `path` becomes `text`; `says` shows it, `tests` are files or single tests in order."""

    name: str
    path: str
    text: str
    says: str
    tests: tuple[str, ...]


@contextmanager
def copied() -> Iterator[Path]:
    """Yield a copy of what git knows and does not ignore; the checkout itself is never written."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    with tempfile.TemporaryDirectory(prefix="dynalab-mutants-") as folder:
        copy = Path(folder)
        for name in names:
            if name and (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        # Compiled once; by content, for two changes within a second have one date.
        compiled = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "dynalab", "tests"]
        subprocess.run([sys.executable, *compiled], cwd=copy, check=True)
        yield copy


def _child(copy: Path, words: list[str], said: Path) -> int:
    """Run pytest on the copy, in a process that was forked for it and holds none of dynalab yet."""
    os.setsid()
    for handle in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), handle)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(copy)
    os.environ |= {
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(copy))
    code = int(pytest.main(words))
    sys.stdout.flush()
    ours = str(getattr(sys.modules.get("dynalab"), "__file__", copy))
    return code if Path(ours).is_relative_to(copy) else pytest.ExitCode.INTERNAL_ERROR


def run(copy: Path, tests: tuple[str, ...], seconds: float) -> str | None:
    """Run tests in the copy, in their order, until one fails or the seconds are spent; return the one that failed."""
    for test in tests:
        failed, spent = _run_one(copy, test, seconds)
        seconds -= spent
        if failed or seconds <= 0:
            return failed
    return None


def _run_one(copy: Path, test: str, seconds: float) -> tuple[str | None, float]:
    """Run a file of tests, or one of them; return the first that failed, and the seconds of CPU that it took."""
    words = ["-x", "--tb=no", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    words += ["-p", "no:cacheprovider", "-p", "mutant_clock", f"--spend={seconds}", f"--each={EACH}"]
    words += [f"--basetemp={copy / 'outputs/tests'}", test]
    said = copy / "outputs/said.txt"
    said.unlink(missing_ok=True)
    sys.stdout.flush()
    # The libraries are there already: importing them takes longer than most tests.
    process, end = os.fork(), time.monotonic() + WAIT * (seconds + EACH)
    if not process:
        try:
            os._exit(_child(copy, words, said))
        except BaseException:
            traceback.print_exc()
        os._exit(pytest.ExitCode.INTERNAL_ERROR)
    try:
        while (ended := os.wait4(process, os.WNOHANG))[0] == 0 and time.monotonic() < end:
            time.sleep(0.02)
    finally:
        # With what the tests started: the session was made for them.
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
    if ended[0] == 0:
        os.waitpid(process, 0)
        return "the limit of time", seconds
    code, spent = os.waitstatus_to_exitcode(ended[1]), ended[2].ru_utime + ended[2].ru_stime
    text = said.read_text(errors="replace")
    if code == 0 or "the seconds are spent" in text:
        return None, spent
    if code < 0 or "while loading conftest" in text:
        return "the limit of time" if code == -signal.SIGPROF else "none: no test could run", spent
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", text, re.MULTILINE)
    if code > pytest.ExitCode.INTERRUPTED or not found:
        raise SystemExit(f"pytest could not run {test}:\n{text}")
    return found[1], spent


def listed(names: list[str]) -> tuple[list[Trial], list[str]]:
    """Return the trials of the list, and those lines of it whose text is not in the source exactly once."""
    trials, gone = [], []
    for entry in tomllib.loads(LIST.read_text())["mutant"]:
        if names and entry["id"] not in names:
            continue
        source = (ROOT / entry["file"]).read_text() if (ROOT / entry["file"]).is_file() else ""
        if source.count(entry["old"]) != 1:
            gone.append(
                f"{entry['id']}: {entry['file']} has {source.count(entry['old'])} times: {entry['old']}"
            )
            continue
        text = source.replace(entry["old"], entry["new"])
        says = f"{entry['file']}: {entry['old'].strip()} -> {entry['new'].strip() or '(nothing)'}"
        tests = tuple(f"tests/{test}" for test in entry.get("tests", ())) or nearest(entry["file"])
        trials.append(Trial(entry["id"], entry["file"], text, says, tests))
    return trials, gone


def drawn(places: list[str], n: int, seed: int) -> list[Trial]:
    """Return `n` trials drawn from files and folders; what only simulates data for trials is left out."""
    paths = {
        p
        for place in places
        for p in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    }
    names = {str(p.relative_to(ROOT)): p.read_text() for p in paths if p.stem not in ("simulate", "cases")}
    trials = []
    for place, (name, mutant) in enumerate(sample(names, n, seed)):
        text = mutant.apply(names[name])
        lines = [t.splitlines()[mutant.line - 1].strip() for t in (names[name], text)]
        says = f"{name}:{mutant.line}: {lines[0]} -> {lines[1]} ({mutant.kind})"
        trials.append(Trial(str(place), name, text, says, nearest(name)))
    return trials


def main() -> int:
    """Try each change, say what noticed it, and the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="ids of the list, or with --sample files and folders")
    parser.add_argument("--sample", type=int, metavar="N", help="draw N changes instead of taking the list")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of CPU that the tests of a change may take"
    )
    options = parser.parse_args()
    gone: list[str] = []
    if options.sample:
        trials = drawn(options.names or ["dynalab"], options.sample, options.seed)
    else:
        trials, gone = listed(options.names)
    print(*(f"gone     {line}" for line in gone), sep="\n", end="\n" if gone else "")
    os.environ.setdefault("MKL_CBWR", "AUTO")
    for library in LIBRARIES:
        import_module(library)
    # The copy goes when the command is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lived, sound = 0, set()
    with copied() as copy:
        for trial in trials:
            begun = time.monotonic()
            (copy / trial.path).write_text(trial.text)
            failed = run(copy, trial.tests, options.seconds)
            shutil.copy2(ROOT / trial.path, copy / trial.path)
            if failed and failed.startswith("tests/") and failed not in sound:
                # It has noticed nothing if it fails on the source as it is.
                if run(copy, (failed,), options.seconds):
                    raise SystemExit(f"{failed} fails on the source as it is")
                sound.add(failed)
            lived += failed is None
            print(f"{'noticed' if failed else 'LIVED':8} {trial.name:4} {trial.says}")
            by = failed or "none of " + " ".join(trial.tests)
            print(f"{'':13} by {by} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"{len(trials) - lived} of {len(trials)} noticed" + (f", {len(gone)} gone" if gone else ""))
    return int(bool(gone or (lived and not options.sample)))


if __name__ == "__main__":
    raise SystemExit(main())
