"""Errors in a plug-in name its file and line and are the user's, wherever they come up; dynalab's own stay bugs."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dynalab
from dynalab.cli.app import run
from dynalab.cli.new import TEMPLATES, texts
from dynalab.config.command import read_command
from dynalab.core import plugins
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import PluginError, is_plugin, know, naming, refuse
from dynalab.training.trial import rehearse

GROUPS = ("task", "model", "optimizer", "schedule", "probe", "edit", "analysis")
WORDS = [
    "task=own",
    "model=own",
    "optimizer=own",
    "schedule=own",
    "probes=[own]",
    "model.width=4",
    "task.samples=4",
]
WORDS += ["train.steps=4", "eval.every=1", "launcher=inline"]
SHARE = 'return {"own_share": small.double().mean(dim=1)}'


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parts of one's own, of every group, as `dynalab new` writes them."""
    folder = tmp_path / "mine"
    for group in GROUPS:
        (folder / group).mkdir(parents=True)
        for name, text in texts(group, "own", folder).items():
            (folder / group / name).write_text(text)
    monkeypatch.setenv("DYNALAB_PATH", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@functools.cache
def composed() -> dict[str, Any]:
    """Return the configuration of these words, which is the same in every test."""
    (request,) = read_command(WORDS).requests
    return request.config.as_dict()


def broken(mine: Path, group: str, old: str, new: str) -> int:
    """Put one piece of a part in another's place, and return the line that it begins at."""
    path = mine / group / "own.py"
    before, found, after = path.read_text().partition(old)
    assert found, (group, old)
    path.write_text(before + new + after)
    return before.count("\n") + 1


# Group, what stands there, what stands there now, and what is said after `own.py:LINE: `; the line is that of the
# piece, or of the function that is named where it gave something that cannot be used.
CASES = [
    ("task", "return Task(config)", "return 1 / 0", "in build: ZeroDivisionError: division by zero"),
    (
        "task",
        "return Task(config)",
        "return None",
        "in build: returned None, expected a task, which has a method",
    ),
    ("task", "(outputs - batch.targets).sq", "(outputs @ batch.targets).sq", "in loss: RuntimeError: "),
    (
        "task",
        "square().mean(dim=(1, 2))",
        "square().mean()",
        "in loss: returned a Tensor of shape (), expected",
    ),
    ("task", 'return {"error": ', 'return None and {"error": ', "in metrics: returned None, expected a dict"),
    (
        "task",
        "return whole\n",
        "return whole.inputs\n",
        "in train_batch: returned a Tensor of shape (2, 4, 1)",
    ),
    (
        "task",
        "return whole\n",
        "return Batch(whole.inputs[0], 0)\n",
        "in train_batch: returned a Tensor of s",
    ),
    ("task", "[self.splits[split]]", "self.splits['valid']", "in eval_batches: KeyError: 'valid'"),
    (
        "task",
        "[self.splits[split]]",
        "self.splits[split]",
        "in eval_batches: returned an object of type Batch",
    ),
    ("task", "symbols=1", "symbols=3", "in forward: RuntimeError: "),
    ("model", "self.first(inputs)", "self.first(inputs.T)", "in forward: RuntimeError: "),
    (
        "model",
        "torch.relu(self.first(inputs))",
        "inputs if inputs.sum() > 0 else 0",
        "in forward: model: torch c",
    ),
    (
        "model",
        "return Network()",
        "return nn.Linear(3, 1)",
        "in build: what it gave cannot be used: RuntimeErr",
    ),
    ("model", "self.head(hidden)", "self.head(hidden).sum()", "in build: returned a Tensor of shape (), exp"),
    (
        "optimizer",
        "return Optimizer",
        "return None and Optimizer",
        "in build: returned None, expected a torch.op",
    ),
    (
        "optimizer",
        '{"lr": config.lr}',
        "{}",
        "in build: returned an object of type Optimizer, expected an optim",
    ),
    ("optimizer", "mean.sign()", "mean.signs()", "in step: AttributeError: 'Tensor' object has no attribute"),
    (
        "optimizer",
        "Optimizer(params, {",
        "torch.optim.LBFGS(params) or ({",
        "in build: what it gave cannot be",
    ),
    (
        "schedule",
        "return config.low +",
        "return None and",
        "in factor: returned None, expected the factor of",
    ),
    (
        "probe",
        SHARE,
        "return [x for x in state.nothing]",
        "in measure: AttributeError: 'ProbeState' object has",
    ),
    (
        "probe",
        SHARE,
        'return {"x": small.double()[:, :2]}',
        "in measure: returned a Tensor of shape (2, 2), exp",
    ),
    (
        "task",
        '{"error": ',
        '{"loss": ',
        "in metrics: returned a dictionary of loss, expected other names than loss",
    ),
    (
        "task",
        '{"error": ',
        '{"loss_max": ',
        "in metrics: returned a dictionary of loss_max, expected other names",
    ),
    (
        "task",
        '{"error": ',
        '{"my error": ',
        "in metrics: returned a dictionary of my error, expected names of let",
    ),
    *(
        (
            "task",
            "        return {",
            f"        {statement}\n        return {{",
            f"in metrics: writes into {what}, which training and others read; write into a copy (clone)",
        )
        for what, statement in (
            ("batch.targets", "batch.targets.zero_()"),
            ("batch.inputs", "batch.inputs.numpy()[:] = 7"),
            ("outputs", "outputs.sigmoid_()"),
        )
    ),
    (
        "task",
        "        return (outputs - batch.targets).square()",
        "        batch.targets.mul_(0.5)\n        return (outputs - batch.targets).square()",
        "in loss: writes into batch.targets, which training and others read",
    ),
    (
        "task",
        "        return {",
        "        self.__dict__['seen'] = self.__dict__.get('seen', 0) + 1\n"
        "        if self.seen > 2:\n            return {'other': outputs.sum((1, 2))}\n        return {",
        "in metrics: returned a dictionary of other, expected error, as of the ",
    ),
    (
        "task",
        "square().mean(dim=(1, 2))",
        "square().mean(dim=(1, 2)).detach()",
        "in loss: the loss does not depend on any parameter: it does not depend on the outputs, as behind",
    ),
    (
        "model",
        "self.head(hidden)",
        "self.head(hidden).detach()",
        "in forward: the loss does not depend on any parameter: outputs do not depend on the parameters, as",
    ),
    (
        "model",
        "self.head(hidden)",
        "(self.head(hidden), 1)",
        "in forward: returned an object of type tuple, exp",
    ),
    (
        "probe",
        SHARE,
        'return {"x": small.sum(1).numpy()}',
        "in measure: returned a ndarray of shape (2,), expected a",
    ),
    (
        "probe",
        SHARE,
        'return {"x": small.sum(1) * 1j}',
        "in measure: returned a Tensor of shape (2,), expected a te",
    ),
    (
        "probe",
        SHARE,
        'return {"step": small.sum(1)}',
        "in measure: returned a dictionary of step, expected other n",
    ),
    *(
        (
            "probe",
            "        small = ",
            f"        {statement}\n        small = ",
            "in measure: writes into the state's params['first.weight'], which training and others read",
        )
        for statement in (
            "state.params['first.weight'].mul_(0.5)",
            "state.params['first.weight'].numpy()[:] *= 0.5",
        )
    ),
    ("probe", SHARE, "return {}", "in measure: returned a dictionary of nothing, expected"),
    (
        "probe",
        "    needs: frozenset",
        "    need: frozenset",
        "in build: returned an object of type Probe, expect",
    ),
    (
        "probe",
        "= frozenset()",
        '= frozenset({"gradient"})',
        "in Probe: returned a list of 'gradient', expected",
    ),
    *(
        (
            "probe",
            'return {"own_share": small.double().mean(dim=1)}',
            f'return {{"{name}": small.double().mean(dim=1)}}',
            f"in measure: returned a dictionary of {name}, expected other names than {name}, which",
        )
        for name in ("test_loss", "batch_loss")
    ),
]


@pytest.mark.parametrize(("group", "old", "new", "said"), CASES)
def test_what_a_plug_in_does_wrong_in_training_names_its_line(mine, one_thread, group, old, new, said):
    config = composed()
    line = broken(mine, group, old, new)
    streams = [dict.fromkeys(("init", "split", "order", "noise"), seed) for seed in (0, 1)]
    with pytest.raises(PluginError) as caught:
        rehearse(config, streams, 4, "cpu", [str(mine)])
    text = str(caught.value)
    assert said in text and "\n" not in text and caught.value.exit_code == 2
    path, place = re.match(r"(mine/\w+/own\.py):(\d+): in ", text).groups()
    source = Path(path).read_text().splitlines()
    if "returned" in said or "gave" in said:
        name = re.search(r"in (\w+): ", said)[1]
        assert re.search(rf"(def|class) {name}\b", source[int(place) - 1]) or source[int(place) - 1][0] == "@"
    elif "RuntimeError: " not in said and re.search("depend|writes|tuple", said):
        assert re.search(rf"def {said.split()[1].rstrip(':')}\b", source[int(place) - 1])
    elif said != "in forward: RuntimeError: " or group == "model":
        assert int(place) == line


@pytest.mark.parametrize(
    ("group", "old", "new", "said"),
    [
        ("task", "def build(config: Config) -> Task:", "def build(config: Config) -> Task", r":\d+: cannot .* Syntax"),
        ("model", "import annotations\n", "import annotations\nimport no_such\n", r":4: cannot be imported: Module"),
        ("probe", "import annotations\n", "import annotations\nno_such\n", r":4: cannot be imported: NameError: name"),
        ("probe", "below: float", "below: Tensor", r":\d+: in Config: NameError: name 'Tensor' is not defined"),
        ("probe", "class Config(Cadence)", "class Config", r"Config has no field every, .*Cadence"),
        ("schedule", "return False", "return config.nothing", r":\d+: in needs_total: AttributeError: 'Config' object"),
        ("optimizer", "@dataclass(frozen=True, kw_only=True)\n", "", r"has no dataclass named Config"),
    ],
)  # fmt: skip
def test_what_is_wrong_before_training_names_its_line(here, mine, group, old, new, said):
    broken(mine, group, old, new)
    answer = here("config", *WORDS)
    assert answer.code == 2 and len(answer.err.splitlines()) == 1
    assert re.search(rf"mine/{group}/own\.py.*{said}" if "own" not in said else said, answer.err), answer.err


def test_a_shard_that_failed_at_once_leaves_its_traceback_and_nothing_else(here, mine, outputs):
    line = broken(mine, "probe", SHARE, "raise RuntimeError('boom\\nbang')")
    answer = here("train", *WORDS, "seed=0..1", "compute.width=1")
    assert answer.code == 2
    (failed,) = [text for text in answer.err.splitlines() if text.startswith("failed: ")]
    place = f"mine/probe/own.py:{line}: in measure: RuntimeError: boom; traceback in "
    assert "and 1 more" in failed and place in failed
    assert "bang" in Path(failed.rpartition(place)[2]).read_text()
    assert not list(outputs.glob("own/*")) and not (outputs / "last.json").exists()
    with pytest.raises(ConfigError, match=re.escape(place)) as caught:
        dynalab.train([*WORDS, "seed=0"])
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_rows_up_to_a_failure_stay_and_the_mended_plug_in_is_another_ensemble(here, mine, outputs):
    before = (mine / "schedule/own.py").read_text()
    broken(
        mine,
        "schedule",
        "    def factor(step: int) -> float:\n",
        "    def factor(step):\n        1 / (3 - step)\n",
    )
    words = ["train", *WORDS, "seed=0", "checkpoint.every=2"]
    for _ in range(2):
        answer = here(*words)
        (place,) = re.findall(r"own\.py:(\d+): in factor: ZeroDivisionError", answer.err)
        (shard,) = outputs.glob("own/*/shard-*")
        assert answer.code == 2 and f"traceback in {shard / 'error.txt'}" in answer.err
        assert f"line {place}, in factor" in (shard / "error.txt").read_text()
        assert "1 failed" in answer.out and "runs rm" in answer.err
        assert [path.name for path in (shard / "checkpoints").iterdir()] == ["step-00000002"]
    (mine / "schedule/own.py").write_text(before)
    mended = here(*words)
    assert mended.code == 0 and "1 new, 0 to go on" in mended.err
    listed = here("runs", "list", "--json").json["runs"]
    assert sorted(run["status"] for run in listed) == ["done", "failed"]


def test_rows_of_a_run_without_a_checkpoint_stay_as_well(here, mine, outputs):
    old, new = "    def factor(step: int) -> float:\n", "    def factor(step):\n        1 / (3 - step)\n"
    broken(mine, "schedule", old, new)
    assert here("train", *WORDS, "seed=0").code == 2
    (run,) = here("runs", "list", "-f", "status=failed", "--json").json["runs"]
    assert run["steps"] > 0
    (frame,) = (pd.read_parquet(path) for path in outputs.glob("own/*/metrics.parquet"))
    assert frame["step"].tolist()[-1] == run["steps"] and frame["train_loss"].notna().all()


@pytest.mark.parametrize(
    ("name", "grid"), [("train_loss", "every=5"), ("l2", "at=[3]"), ("test_error", "at=[3]")]
)
def test_a_probe_on_a_grid_of_its_own_takes_no_column_of_another(here, mine, name, grid):
    broken(mine, "probe", "own_share", name)
    words = [word for word in WORDS if not word.startswith(("probes", "eval"))]
    words += ["probes=[own,weights]", "eval.every=2", f"probe.own.{grid}"]
    # Where rows were stored before it, a dry run says as well why there are no more.
    for more in ([], ["--dry-run"]):
        answer = here("train", *words, "seed=0", *more)
        assert answer.code == 2
        assert f"returned a dictionary of {name}, expected other names than {name}, which" in answer.err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "symbols=1",
            "symbols=3",
            "returned a Tensor of shape (2, 4, 1), expected inputs of shape (2, B, 3)",
        ),
        (
            "return whole\n",
            "return Batch(whole.inputs.double(), whole.targets)\n",
            "expected inputs of type float32",
        ),
        ('kind="vector"', 'kind="pairs"', "expected inputs of integers from 0 to 0, as spec.symbols is 1"),
    ],
)
def test_data_that_a_model_of_dynalabs_cannot_take_is_named(mine, one_thread, old, new, said):
    words = [word for word in WORDS if not word.startswith("model")]
    model = "embedding_mlp" if "pairs" in new else "mlp"
    (request,) = read_command([*words, f"model={model}"]).requests
    broken(mine, "task", old, new)
    streams = [dict.fromkeys(("init", "split", "order", "noise"), seed) for seed in (0, 1)]
    with pytest.raises(PluginError, match=f"own.py:[0-9]+: in train_batch: .*{re.escape(said)}"):
        rehearse(request.config.as_dict(), streams, 4, "cpu", [str(mine)])


def test_a_place_is_said_once_in_python(mine):
    broken(mine, "model", "torch.relu(self.first(inputs))", "inputs if inputs.sum() > 0 else 0")
    with pytest.raises(PluginError, match=": in forward: model: torch cannot run") as caught:
        dynalab.train([*WORDS, "seed=0..1"])
    assert str(caught.value).count("in forward") == 1


def test_an_edit_names_its_line(here, mine):
    here("train", *WORDS, "seed=0")
    place = broken(mine, "edit", "small = weights.abs()", "small = weight.abs()")
    answer = here("fork", "@last", "2", "edit=own", "launcher=inline")
    assert answer.code == 2 and f"mine/edit/own.py:{place}: in apply: NameError: name 'weight'" in answer.err
    broken(mine, "edit", "small = weight.abs()", "small = weights.abs()")
    broken(mine, "edit", "tensor.masked_fill_(small, 0.0)", "state.weights[name] = 2 * weights")
    answer = here("fork", "@last", "2", "edit=own", "launcher=inline")
    assert (
        answer.code == 2 and "in apply: returned a Tensor of shape" in answer.err and "in place" in answer.err
    )


@pytest.mark.usefixtures("undrawn")
def test_an_analysis_names_its_line_in_terminal_page_and_notebook(here, mine, outputs):
    here("train", *WORDS, "seed=0..1")
    whole = (mine / "analysis/own.py").read_text()
    assert here("analyze", "own").code == 0
    (result,) = outputs.glob("analysis/own-*")

    def said(old: str, new: str, *words: str) -> str:
        (mine / "analysis/own.py").write_text(whole)
        place = broken(mine, "analysis", old, new)
        answer = here(*words)
        assert answer.code == 2, answer.err
        (line,) = [text for text in answer.err.splitlines() if text.startswith("dynalab: ")]
        return line.replace(f"own.py:{place}:", "own.py:LINE:")

    analyze, report = ("analyze", "own", "--force"), ("report",)
    for old, new, expected in (
        ("loss.steps[loss", "loss.step[loss", "own.py:LINE: in analyse: AttributeError: 'Series' object"),
        ("    return Findings(", "    Findings(", "in analyse: returned None, expected Findings"),
        ("quantile([fall.step for fall in falls], 0.5)", "{1: 2}", "in Findings: ValidationError: Expected"),
        (
            "quantile([fall.step for fall in falls], 0.5)",
            "object()",
            "in Findings: NotImplementedError: object is no",
        ),
        ("NEEDS = Needs(", "NEEDS = dict(", "own.py: returned a dictionary of columns"),
        (
            "NEEDS = Needs(",
            "NEEDS = lambda config: config.no\nX = Needs(",
            "own.py:LINE: AttributeError: 'Config'",
        ),
        (
            "fall.step is not None for",
            "fall.stop is not None for",
            "own.py:LINE: in show: AttributeError: 'Fall'",
        ),
        ("    yield Table(", "    yield str(", "own.py:LINE: in show: TypeError"),
        ("    yield Table(", "    yield 1\n    yield Table(", "in show: returned 1, expected blocks"),
        (
            "[[run_cell(fall.run), fall.step] for fall in findings.runs]",
            "3",
            "in show: what it gave cannot be used: Typ",
        ),
    ):
        assert expected in said(old, new, *analyze)
    for old, new, expected in (
        ("caption=caption", "caption=1 / 0", "own.py:LINE: in show: ZeroDivisionError"),
        ("strips=strips", "strips=[1]", "in show: what it gave cannot be used: AttributeError"),
        ("import annotations\n", "import annotations\nno_such\n", "own.py:4: cannot be imported: NameError"),
    ):
        line = said(old, new, *report)
        assert expected in line and "the page is without it: " in line
        assert Path(line.rpartition("it: ")[2]).is_file()
    (mine / "analysis/own.py").write_text(whole)
    broken(mine, "analysis", "caption=caption", "caption=1 / 0")
    with pytest.raises(ConfigError, match=r"own\.py:\d+: in show: ZeroDivisionError") as caught:
        dynalab.view(result.name)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    traced = here(*analyze, "loss=1", "-v")
    assert traced.code == 2 and "Traceback" not in traced.err, (
        "a key that there is not is no error of the file's"
    )
    broken(mine, "analysis", "falls = []", "falls = None")
    assert "Traceback (most recent call last)" in here(*analyze, "-v").err


def test_what_is_not_a_plug_ins_stays_what_it_is(here, mine, monkeypatch, tmp_path):
    monkeypatch.setattr(plugins, "_FOLDERS", {f"{mine}/"})

    def raising(*_: object, **keys: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("dynalab.config.command.read_command", raising)
    answer = here("config", "task=own")
    assert answer.code == 1 and "a bug of dynalab's: RuntimeError: ours" in answer.err
    with pytest.raises(TypeError, match=r"run returned None, expected an integer"):
        refuse(run, None, "an integer")
    # What a plug-in raises for its user is said as it is; want of memory is nobody's line.
    space = {"ConfigError": ConfigError}
    know(tmp_path)
    source = "def check():\n    raise ConfigError('x=1: expected 2')\ndef large():\n    raise MemoryError\n"
    exec(compile(source, str(tmp_path / "own.py"), "exec"), space)
    with pytest.raises(ConfigError, match=r"^x=1: expected 2$"), naming():
        space["check"]()
    with pytest.raises(MemoryError), naming():
        space["large"]()
    # An environment, or dynalab itself, may lie in a folder of plug-ins.
    assert is_plugin(str(tmp_path / "own.py")) and not is_plugin(
        str(tmp_path / ".venv/lib/site-packages/torch/a.py")
    )
    know(Path(dynalab.__file__).parent.parent)
    assert not is_plugin(plugins.__file__) and not is_plugin(str(TEMPLATES / "probe/blank.py"))
    plugins._FOLDERS.discard(f"{Path(dynalab.__file__).parent.parent}/")
    assert not is_plugin(sys.modules["json"].__file__)


def test_a_key_of_a_probe_that_cannot_be_imported_is_explained_by_its_line(here, mine):
    broken(mine, "probe", "def build(", "def build(:")
    answer = here("config", "--explain", "probe.own.below", "--config-dir", str(mine))
    assert answer.code == 2 and "probe/own.py:" in answer.err and "SyntaxError" in answer.err
