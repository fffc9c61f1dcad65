"""A word is read once and means the same in every command and in Python; a value that is written is read again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_fakes import make_ensemble
from test_kinds import OWN

import dynalab
from dynalab.cli.app import run
from dynalab.config import seeds
from dynalab.config.analysis import read_analysis
from dynalab.config.command import read_command
from dynalab.config.ensemble import from_stored
from dynalab.config.forks import Origin, parse_fork, read_forks
from dynalab.config.overrides import Override, cells, parse
from dynalab.config.words import word_of
from dynalab.errors import ConfigError

ODD = [
    "é",
    "a b",
    "null",
    "TRUE",
    "1e3",
    "007",
    "-inf",
    "nan",
    "a'b",
    "a\\'",
    "\\",
    "x=y",
    "[",
    "~/x",
    "${a.b}",
]
VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-9, 9**9), st.floats(allow_nan=False, allow_infinity=False)),
        *(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=8), st.sampled_from(ODD)),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)


@settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(VALUES)
def test_a_value_that_is_written_is_read_again(value):
    (override,) = parse([f"key={word_of(value)}"])
    # By repr, which tells 1 from 1.0, True and '1'.
    assert repr(override.value) == repr(value)


@pytest.mark.parametrize("text", ["hmm-7ebafd365b", "a/b.c", "${tuned.optimizer.adam.lr}", "log", "50%"])
def test_text_is_quoted_only_where_it_needs_quotes(text):
    assert word_of(text) == text and word_of(f"{text} ,") == f"'{text} ,'"


def test_a_word_has_a_key_and_values_and_how_it_was_written():
    rate, seeds, gone = parse(["++optimizer.lr=1e-3,1e-2", "seed=0..2,7", "~train.clip"])
    assert (rate.key, rate.sign, rate.values, str(rate)) == (
        *("optimizer.lr", "++", (0.001, 0.01)),
        "++optimizer.lr=1e-3,1e-2",
    )
    assert [str(one) for (one,) in cells([rate])] == ["++optimizer.lr=0.001", "++optimizer.lr=0.01"]
    assert (seeds.values, seeds.text) == ((0, 1, 2, 7), "0..2,7")
    assert (gone.key, gone.sign, gone.values) == ("train.clip", "~", (None,))
    # What is read stays as it is; seeds of a program are read as those of a word are.
    assert parse([rate, seeds, gone]) == [rate, seeds, gone]
    assert parse([Override.of("seed", range(3))])[0].values == (0, 1, 2)
    with pytest.raises(ConfigError, match="seed=-1: a seed is at least 0"):
        parse([Override.of("seed", -1)])


def test_seeds_are_read_once_whatever_is_swept(monkeypatch):
    calls = []
    monkeypatch.setattr(seeds, "_split", lambda text, split=seeds._split: calls.append(text) or split(text))
    requests = read_command(["seed=0..3", "seed_streams.order=[5,6]", "optimizer.lr=1,2,3"]).requests
    assert len(requests) == 6 and [run.seed for run in requests[-1].runs] == [0, 1, 2, 3]
    assert calls == ["0..3", "[5,6]", "5,6", "5", "6"]


def test_a_programs_words_are_those_of_the_command_line():
    values = {
        "task": "parity",
        "optimizer": "adamw",
        "optimizer.lr": np.float32(0.5),
        "train.steps": np.int64(7),
        "optimizer.betas": (0.5, 0.75),
        "eval": {"every": np.int64(5), "size": None},
        "seed": np.arange(2),
    }
    (own,) = read_command([Override.of(key, value) for key, value in values.items()]).requests
    first = ["task=parity", "optimizer=adamw", "optimizer.lr=0.5", "train.steps=7"]
    words = ["optimizer.betas=[0.5,0.75]", "eval={every:5,size:null}", "seed=[0,1]"]
    (typed,) = read_command([*first, *words]).requests
    assert own == typed
    assert own.overrides == [*first, *words[:2]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("task=grokking", "task=grokking: expected a list of words, "),
        (["task=grokking", 3], "3: expected a word as text"),
        ([("seed", 3)], "('seed', 3): expected a word as text"),
    ],
)
def test_what_is_no_list_of_words_is_told_so(words, said, tmp_path):
    for call in (dynalab.train, read_command):
        with pytest.raises(ConfigError) as caught:
            call(words)
        assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def forked(*words, parent=("task=parity", "optimizer=sgd", "train.batch_size=16", "optimizer.momentum=0.5")):
    (request,) = read_command(parent).requests
    origin = Origin(request.config.id, request.config.as_dict(), 5, steps=20)
    return read_forks(origin, parse_fork(words))


@pytest.mark.parametrize(
    ("word", "same"),
    [
        # Sections are merged into the parent's, and do not take their place.
        ("train={clip:1}", "train.clip=1"),
        ("optimizer={lr:0.25}", "optimizer.lr=0.25"),
        ("++probe.weights={every:200}", "probe.weights.every=200"),
        ("edit={name:perturb,scale:0.5}", ["edit.scale=0.5", "edit=perturb"]),
        ("optimizer.lr=${optimizer.momentum}", "optimizer.lr=0.5"),
        ("+train.clip=1", "train.clip=1"),
        ("train.clip=choice(1)", "train.clip=1"),
        (["edit=freeze", "edit=perturb"], "edit=perturb"),
        ("optimizer=glob(adamw)", "optimizer=adamw"),
    ],
)
def test_a_forks_words_mean_what_those_of_train_do(word, same):
    one, other = (forked(*([item] if isinstance(item, str) else item)) for item in (word, same))
    assert [item.config.id for item in one.variants] == [item.config.id for item in other.variants]
    (variant,) = one.variants
    assert variant.config.train.batch_size == 16
    assert variant.config.optimizer.name == ("adamw" if "adamw" in same else "sgd")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+train.batch_size=8", "train.batch_size is there already, 16; train.batch_size=8 sets it"),
        ("train.clip@there=1", "train.clip is no group, so it has no package"),
        ("train.batch_size.x=3", "train.batch_size.x: no such key (did you mean train.batch_size?)"),
        ("train.clip=${nope}", "there is no nope here"),
        ("edit=5", "edit=5: no such edit"),
        ("seed_streams={order:3}", "name the stream, for example seed_streams.order=3"),
        ("seed=${oc.env:DYNALAB_NOWHERE}", "'DYNALAB_NOWHERE' not found"),
    ],
)
def test_a_fork_refuses_what_train_refuses(word, said):
    with pytest.raises(ConfigError) as caught:
        forked(word)
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_forks_seeds_take_interpolations(monkeypatch):
    monkeypatch.setenv("DYNALAB_SEEDS", "2")
    forks = forked("seed=0..${oc.env:DYNALAB_SEEDS}", "seed_streams.order=${oc.env:DYNALAB_SEEDS},5")
    assert forks.seeds == [0, 1, 2] and [item.streams for item in forks.variants] == [
        {"order": 2},
        {"order": 5},
    ]


def test_a_strangers_configuration_refers_to_nothing(monkeypatch):
    monkeypatch.setenv("SECRET", "float16")
    tree = read_command(["task=parity"]).requests[0].config.as_dict()
    tree["train"]["loss_dtype"] = "${oc.env:SECRET}"
    with pytest.raises(ConfigError) as caught:
        from_stored(tree)
    assert "train.loss_dtype: a stored configuration refers to nothing" in str(caught.value)
    assert "float16" not in str(caught.value)


def test_keys_of_an_analysis_from_python_are_those_of_the_command_line():
    def of(**keys):
        return read_analysis("hmm", [Override.of(key, value) for key, value in keys.items()])[1]

    def typed(*words):
        return read_analysis("hmm", words)[1]

    assert of(max_states=np.int64(3), metrics=("l2", "mean_w")) == typed("max_states=3", "metrics=l2,mean_w")
    nested = of(convergence={"metric": "loss", "threshold": np.float64(0.5)})
    assert nested == of(**{"convergence.metric": "loss", "hmm.convergence.threshold": 0.5})
    assert nested == typed("convergence={metric:loss,threshold:0.5}") != of()
    assert of(max_states=None) == of() == typed("~max_states")
    for word in ("~max_states=3", "max_states@there=3", "+max_states.x=3"):
        with pytest.raises(ConfigError):
            typed(word)


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """An analysis of one's own that needs nothing."""
    (tmp_path / "own" / "analysis").mkdir(parents=True)
    (tmp_path / "own" / "analysis" / "rows.py").write_text(OWN)
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path / "own"))


def test_one_analysis_over_all_is_asked_for_from_python_as_well(outputs, rows):
    ensembles = [make_ensemble(outputs, digest=digest) for digest in ("1" * 10, "2" * 10)]
    pooled = dynalab.analyze("rows", ensembles, pool=True)
    assert pooled["rows"] == 168 and pooled.ensembles == ["1" * 10, "2" * 10]
    assert [item["rows"] for item in dynalab.analyze("rows", ensembles)] == [84, 84]
    with pytest.raises(ConfigError, match="pool=3: expected true or false"):
        dynalab.analyze("rows", ensembles, pool=3)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("written", ["été/x", "'été/x'", "${oc.env:HERE}"])
def test_a_folder_is_named_in_every_command_alike(written, monkeypatch, tmp_path, capsys, rows):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", "été/x")
    folder = tmp_path / "été" / "x"
    assert read_command([f"outputs={written}"]).settings.outputs == folder
    make_ensemble(folder)
    for command in (["analyze", "rows"], ["report", "name=1e3"]):
        assert run([*command, f"outputs={written}"]) == 0
        assert str(folder) in capsys.readouterr().out
    assert (folder / "reports" / "1e3" / "index.html").is_file()
    for word in ("outputs=a,b", "outputs=", "~outputs=x", "name="):
        assert run(["report", word]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train task=parity train.steps=10 train.steps=20", "both: train.steps=10,20"),
        ("train task=parity seed=0 seed=1", "seed=0 seed=1: seed is given twice"),
        ("train task=parity seed_streams.order=0 seed_streams.order=1", "seed_streams.order is given twice"),
        ("train task=parity optimizer=adam optimizer=sgd", "both: optimizer=adam,sgd"),
        (
            "train task=parity optimizer.lr=1 ~optimizer.lr",
            "optimizer.lr=1 ~optimizer.lr: optimizer.lr is given",
        ),
        ("train task=parity +train.x=1 ++train.x=2", "train.x is given twice, and only the last would count"),
        ("fork abc 10 edit.scale=1 edit.scale=2", "both: edit.scale=1,2"),
        ("config task=parity task=mlm", "both: task=parity,mlm"),
        ("bench task=parity task=mlm", "task is given twice"),
        (
            "analyze hmm max_states=3 hmm.max_states=4",
            "max_states is given twice, and only the last would count",
        ),
        ("report name=a name=b", "name is given twice"),
        ("reproduce thilak2022 device=cpu device=cuda", "device is given twice"),
        ("runs rerun abc compute.width=1 compute.width=2", "compute.width is given twice"),
        ("runs list -f seed=0 --filter=seed=1", "--filter seed=0 seed=1: given 2 times; expected once"),
        ("train task=parity --outputs a --outputs b", "--outputs a b: given 2 times"),
    ],
)
def test_a_key_or_an_option_is_given_once(capsys, line, said):
    assert run(line.split()) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.lr=0.1", "optimizer.lr=0.1"],
        # A part is chosen by one word and its keys are set by another, and mappings are merged.
        ["optimizer=sgd", "optimizer={lr: 0.1}", "optimizer.momentum=0.5"],
        ["train={steps: 10}", "train={batch_size: 3}"],
        ["optimizer.lr=1e-3", "optimizer.lr=0.001"],
        ["train.steps=10", "++train.steps=10"],
        ["optimizer.lr=0.1", "--config-dir", ".", "--config-dir", "."],
    ],
)
def test_words_of_which_none_is_lost_are_taken(capsys, words):
    assert run(["config", "task=parity", *words]) == 0
