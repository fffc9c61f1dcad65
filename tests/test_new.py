"""`dynalab new`: what it writes works at once, its tests pass, and what cannot be written is refused in a line."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import but

from dynalab.cli.new import TEMPLATES, USES
from dynalab.config.plain import key_of
from dynalab.config.registry import find, names

ROOT = Path(__file__).resolve().parent.parent
DOCS = (ROOT / "docs/extending.md").read_text()
TINY = ["train.steps=4", "launcher=inline"]


@pytest.fixture(autouse=True)
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(said: str, what: str) -> list[str]:
    """Return the words of a command that `dynalab new` printed."""
    (line,) = [line for line in said.splitlines() if line.startswith(what)]
    return shlex.split(line.partition(":")[2], comments=True)


def test_every_part_works_with_the_command_that_is_printed(here):
    uses: dict[str, list[str]] = {}
    for group in USES:
        made = here("new", group, f"my_{group}")
        assert made.code == 0, made.err
        files = made.out.split()
        assert len(files) == (2 if group == "analysis" else 3) and all(Path(file).is_file() for file in files)
        assert "blank" not in "".join(Path(file).read_text() for file in files)
        words = printed(made.err, "use it")
        assert words[-2:] == ["--config-dir", "mine"] and words[0] == "dynalab"
        assert printed(made.err, "test it")[-1] == files[-1]
        uses[group] = words[1:]
    # What goes together is trained together.
    beside = [group for group in USES if uses[group][0] == "train" and group != "task"]
    together = list(dict.fromkeys(word for group in beside for word in uses[group] if word[:5] != "seed="))
    steps = {"task": uses["task"], "beside": together, "edit": uses["edit"], "analysis": uses["analysis"]}
    for name, words in steps.items():
        small = [] if name == "analysis" else TINY if name == "edit" else [*TINY, "seed=0..1"]
        done = here(*but([word.replace("100", "2") for word in words], *small), "--json")
        assert done.code == 0, (words, done.err)
    (found,) = done.json["analyses"]
    assert found["kind"] == "my_analysis" and len(found["runs"]) == 2


def run_tests(*words: str) -> int:
    """Run pytest in this process, which has torch loaded."""
    for module in [name for name in sys.modules if name.startswith("test_my_")]:
        del sys.modules[module]
    # Not its own cleaning up: it looks for garbage again and again, and at what older sessions left.
    own = ["-p", "no:cacheprovider", "-p", "no:unraisableexception", "--basetemp=temporary"]
    return int(pytest.main(["-q", *own, *words]))


def test_the_tests_that_are_written_pass_and_can_fail(here, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    for group in USES:
        assert here("new", group, f"my_{group}").code == 0
    assert run_tests("mine") == 0
    for group, old, new in (
        ("analysis", "<= config.share", "< 0 * config.share"),
        ("schedule", "step % config.period", "step"),
        ("probe", "dim=1)}", "dim=1) / 2}"),
    ):
        file = Path(f"mine/{group}/my_{group}.py")
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        assert run_tests(f"mine/{group}") == 1, group


def test_where_it_is_written_and_what_is_said(here, tmp_path):
    made = here("new", "schedule", "waves", DYNALAB_PATH=f"{tmp_path / 'lab'}:/nowhere")
    assert made.out.split()[0] == str(tmp_path / "lab/schedule/waves.py"), made.err
    assert "--config-dir" not in made.err and "for good" not in made.err
    taken = here("new", "schedule", "waves", DYNALAB_PATH=f"{tmp_path / 'other'}:{tmp_path / 'lab'}")
    assert taken.code == 2 and "lab/schedule/waves.py has this name already" in taken.err
    made = here("new", "edit", "waves", "--config-dir", "a b/c")
    assert Path("a b/c/edit/waves.yaml").is_file() and "--config-dir 'a b/c'" in made.err
    # A test of the same name in another group would hide it from pytest.
    made = here("new", "probe", "waves", "--config-dir", "a b/c")
    assert made.out.splitlines()[2].endswith("test_probe_waves.py")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["probe", "weights"], "dynalab has weights itself"),
        (["task", "reports"], "dynalab has reports itself"),
        (["model", "two-layers"], "for example two_layers"),
        (["model", "2"], "letters, digits and _"),
        (["model", "class"], "letters, digits and _"),
        (["model", "../x"], "for example x"),
        (["edit", "null"], "is no word"),
        (["probe", "json"], "a Python module has this name"),
        (["sprobe", "x"], "sprobe: expected task, model,"),
        (["sprobe", "x"], "(did you mean probe?)"),
        (["probe"], "Missing argument"),
    ],
)
def test_a_name_that_cannot_be_is_refused(here, words, said):
    answer = here("new", *words)
    assert answer.code == 2 and said in answer.err and len(answer.err.splitlines()) <= 2, answer.err
    assert not Path("mine").exists()


def test_nothing_is_overwritten_and_nothing_half_written(here):
    assert here("new", "probe", "own").code == 0
    before = Path("mine/probe/own.py").read_text()
    again = here("new", "probe", "own")
    assert again.code == 2 and "is there already" in again.err
    Path("mine/probe/other.yaml").write_text("mine: 1\n")
    assert here("new", "probe", "other").code == 2
    assert not Path("mine/probe/other.py").exists() and Path("mine/probe/own.py").read_text() == before
    Path("file").write_text("")
    answer = here("new", "probe", "own", "--config-dir", "file")
    assert answer.code == 3 and "cannot write" in answer.err


@pytest.mark.parametrize("group", [*USES])
def test_templates_list_their_keys_and_import_no_torch(group):
    part = find(group, "blank", [TEMPLATES])
    assert "blank" not in names(group)
    if group != "analysis":
        listed = [line.split(":")[0] for line in part.defaults([TEMPLATES]).splitlines()]
        fields = {key_of(field.name) for field in dataclasses.fields(part.config_class)}
        assert fields <= {word.strip() for word in listed}
    assert not re.search(r"^(import|from) torch", (TEMPLATES / group / "blank.py").read_text(), re.M)


def test_what_stands_in_docs_extending_works(here, monkeypatch):
    commands = [
        shlex.split(line, comments=True)
        for block in re.findall(r"```bash\n(.*?)```", DOCS, re.S)
        for line in block.splitlines()
    ]
    assert [words[0] for words in commands] == ["dynalab", "pytest", "dynalab"]
    for words in commands:
        if words[0] == "dynalab":
            small = [*TINY, "seed=0"] if words[1] == "train" else []
            done = here(*but(words[1:], *small))
            assert done.code == 0, (words, done.err)
        else:
            assert Path(words[1]).is_file()
    for code in re.findall(r"```python\n(.*?)```", DOCS, re.S):
        exec(compile(code, "docs/extending.md", "exec", dont_inherit=True), {"__name__": "example"})
    for path in re.findall(r"`(dynalab/[\w/]+\.py)`", DOCS):
        assert (ROOT / path).is_file(), path
    groups = re.search(r"The groups are `(.*?)`", DOCS, re.S)
    assert groups is not None and groups[1].split() == [*USES]
