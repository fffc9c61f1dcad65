"""Checkpoints from elsewhere: whose they are, what counts, what is measured, and that none of them is run or copied."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import weakref
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dynalab
from dynalab.imports import places
from dynalab.imports.counted import counted, measure, shapes_of
from dynalab.imports.rows import Form
from dynalab.report import provenance
from dynalab.store import elsewhere

STEPS = (0, 1, 2, 8, 16, 143000)


def neox(seed: int, width: int = 6, layers: int = 2) -> dict[str, Tensor]:
    """The weights of a small GPT-NeoX as Pythia's checkpoints name them."""
    shapes = {"gpt_neox.embed_in.weight": (11, width), "embed_out.weight": (11, width)}
    shapes |= {f"gpt_neox.final_layer_norm.{kind}": (width,) for kind in ("weight", "bias")}
    for layer in range(layers):
        for name, rows, columns in (
            *(("attention.query_key_value", 3, 1), ("attention.dense", 1, 1)),
            *(("mlp.dense_h_to_4h", 4, 1), ("mlp.dense_4h_to_h", 1, 4)),
        ):
            prefix = f"gpt_neox.layers.{layer}.{name}"
            shapes[f"{prefix}.weight"] = (rows * width, columns * width)
            shapes[f"{prefix}.bias"] = (rows * width,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"gpt_neox.layers.{layer}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
    draw = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def as_pythia(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In half precision, with the buffers that lie beside: masks of whole numbers, and one number that is -inf."""
    beside = {}
    for layer in range(2):
        prefix = f"gpt_neox.layers.{layer}.attention"
        beside[f"{prefix}.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
        beside[f"{prefix}.masked_bias"] = torch.tensor(-1e9).half()
        beside[f"{prefix}.rotary_emb.inv_freq"] = torch.ones(3)
    return {name: x.half() for name, x in weights.items()} | beside


def write(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(dict(tensors), str(path))
    else:
        torch.save(dict(tensors), path)
    return path


def walk(seed: int, steps: int, size: float = 0.01) -> list[dict[str, Tensor]]:
    """Weights of as many steps, a random walk."""
    draw, weights, found = torch.Generator().manual_seed(100 + seed), neox(seed), []
    for _ in range(steps):
        weights = {name: x + size * torch.randn(x.shape, generator=draw) for name, x in weights.items()}
        found.append(weights)
    return found


def suite(folder: Path) -> Path:
    """Three seeds in the three forms that Hugging Face has: a file, shards, safetensors."""
    for seed in (1, 2, 3):
        for step, weights in zip(STEPS, walk(seed, len(STEPS)), strict=True):
            place, own = folder / f"pythia-14m-seed{seed}" / f"step{step}", as_pythia(weights)
            names = sorted(own)
            if seed == 1:
                write(place / "pytorch_model.bin", own)
            elif seed == 2:
                for part, some in enumerate((names[:12], names[12:]), 1):
                    write(
                        place / f"pytorch_model-0000{part}-of-00002.bin", {name: own[name] for name in some}
                    )
                (place / "pytorch_model.bin.index.json").write_text("{}")
            else:
                write(place / "model.safetensors", own)
                write(place / "optimizer.bin", {"exp_avg": torch.ones(2, 2)})
            (place / "config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def pythia(tmp_path_factory) -> Path:
    return suite(tmp_path_factory.mktemp("suite") / "pythia")


def oracle(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """The fourteen of the layers' weights and biases, by their formulas, with numpy's singular values."""
    chosen = {n: x.half().double().numpy() for n, x in weights.items() if "layers" in n and "norm" not in n}
    matrices = [x for n, x in chosen.items() if n.endswith("weight")]
    w = np.concatenate([x.ravel() for x in matrices])
    b = np.concatenate([x for n, x in chosen.items() if n.endswith("bias")])
    values = [np.linalg.svd(x, compute_uv=False) for x in matrices]
    l1, l2 = [np.abs(x).sum() for x in matrices], [np.sqrt(np.square(x).sum()) for x in matrices]
    trace, largest = [np.trace(x) for x in matrices], [s.max() for s in values]
    middle = {name: np.sort(x)[(len(x) - 1) // 2] for name, x in (("w", w), ("b", b))}
    return {
        **{"l1": np.mean(l1), "l2": np.mean(l2), "l1_over_l2": np.mean(np.divide(l1, l2))},
        **{"mean_w": w.mean(), "median_w": middle["w"], "var_w": w.var()},
        **{"mean_b": b.mean(), "median_b": middle["b"], "var_b": b.var()},
        **{"trace": np.mean(trace), "lambda_max": np.mean(largest)},
        "trace_over_lambda_max": np.mean(np.divide(trace, largest)),
        **{"mean_sv": np.mean([s.mean() for s in values]), "var_sv": np.mean([s.var() for s in values])},
    }


def test_the_layout_of_pythia_is_known_in_every_form(pythia, here, outputs):
    done = here("import", "--checkpoints", str(pythia), "--json")
    assert done.code == 0, done.err
    assert (done.json["name"], len(done.json["metrics"])) == ("pythia-14m", 14)
    guessed, count = done.json["warnings"]
    assert "is run pythia-14m-seed1 at step 0" in guessed
    assert (
        "by their names 8 as weights (gpt_neox.layers.0.attention.query_key_value.weight and 7 more) and"
        in count
    )
    assert "8 as biases" in count and "18 tensors left out" in count
    ensemble = dynalab.load("pythia-14m")
    assert [(run.label, run.seed) for run in ensemble.runs] == [(f"pythia-14m-seed{s}", s) for s in (1, 2, 3)]
    assert ensemble.steps("l2").tolist() == list(STEPS)
    for row, seed in enumerate((1, 2, 3)):
        for at in (0, 5):
            expected = oracle(walk(seed, len(STEPS))[at])
            found = {name: ensemble.array(name)[row, at] for name in expected}
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("*") if path.name != "last.json"}
    for words in (
        [f"{pythia}/pythia-14m-seed*/step*"],
        [f"{pythia}/{{run}}/step{{step}}"],
        [rf"{pythia}/(?P<run>[\w-]+)/step(?P<step>\d+)"],
        [f"{pythia}/*-seed{{seed}}/step{{step}}", "--name", "seeds"],
        list(map(str, sorted(pythia.glob("*/step*")))),
    ):
        again = here("import", "--checkpoints", *words, "--json")
        assert again.code == 0, again.err
        assert (again.json["id"] == ensemble.id) != ("seeds" in words), again.json["runs"]
    assert not [path for path in before if path.suffix == ".npy" and path.stat().st_mtime_ns != before[path]]
    assert [run.label for run in dynalab.load("seeds").runs] == ["seed1", "seed2", "seed3"]


@pytest.mark.parametrize(
    ("files", "word", "found"),
    [
        (["r/a/step10.pt", "r/b/step9.pt"], "r/*/step*.pt", [("a", 10), ("b", 9)]),
        (["r/a/step10.pt", "r/b/step9.pt"], "r/*", [("a", 10), ("b", 9)]),
        (["r/a_step10.pt", "r/b_step9.pt"], "r/*.pt", [("a", 10), ("b", 9)]),
        (["r/10/a.pt", "r/9/a.pt", "r/9/b.pt"], "r/**/*.pt", [("a", 9), ("a", 10), ("b", 9)]),
        (["r/epoch=1-loss=0.5.ckpt", "r/epoch=2-loss=0.4.ckpt"], "r", [("r", 1), ("r", 2)]),
        (["r/checkpoint-500/model.safetensors", "r/checkpoint-500/optimizer.pt"], "r", [("r", 500)]),
        (["r/checkpoint-500/pytorch_model.bin", "r/checkpoint-500/optimizer.pt"], "r/*/*.??*", [("r", 500)]),
        (
            ["r/s3_lr0.1_10.pt", "r/s4_lr0.1_10.pt"],
            "r/s{seed}_lr{lr}_{step}.pt",
            [("seed3-lr0.1", 10), ("seed4-lr0.1", 10)],
        ),
        (["r/a-b-10.pt"], "r/{run}-{step}.pt", [("a-b", 10)]),
        (["r/a/a10.pt", "r/a/b10.pt"], "r/{run}/{run}{step}.pt", [("a", 10)]),
        (["r/a[1]/10.pt"], "r/a[[]1[]]/{step}.pt", [("a[1]", 10)]),
    ],
)
def test_whose_a_checkpoint_is_by_its_path(files, word, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in map(Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    frame, *_ = places.find([word], Form())
    assert sorted(zip(frame["run"], frame["step"], strict=True)) == found


def test_the_cache_of_hugging_face_is_read(pythia, tmp_path, here):
    for step, commit in ((0, "a" * 40), (16, "b" * 40)):
        hub = tmp_path / "hub" / "models--EleutherAI--pythia-14m-seed3"
        blob = hub / "blobs" / commit
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pythia / "pythia-14m-seed3" / f"step{step}" / "model.safetensors", blob)
        (hub / "snapshots" / commit).mkdir(parents=True)
        (hub / "snapshots" / commit / "model.safetensors").symlink_to(f"../../blobs/{commit}")
        (hub / "refs").mkdir(exist_ok=True)
        (hub / "refs" / f"step{step}").write_text(commit)
    (hub / "refs" / "main").write_text("c" * 40)
    done = here("import", "--checkpoints", str(tmp_path / "hub"), "--json")
    assert done.code == 0, done.err
    (run,) = dynalab.load(done.json["id"]).group().runs
    assert (run.label, run.weights.steps) == ("pythia-14m-seed3", (0, 16))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of the lab, with the fourteen and the weights of the same steps."""
    words = ["task=regression", "model.hidden=[12,9]", "train.steps=12", "seed=0..1"]
    words += [
        "probes=[weights]",
        "probe.weights.every=3",
        "eval.every=3",
        "snapshots.every=3",
        "launcher=inline",
    ]
    (ensemble,) = dynalab.train(words, outputs=tmp_path_factory.mktemp("trained"))
    return ensemble


@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_the_same_weights_have_the_numbers_that_the_lab_has(trained, tmp_path, here, form):
    for run in trained.runs:
        for step, path in run.shard.snapshots().items():
            own = {name: stack[run.index].clone() for name, stack in load_file(path).items()}
            tree = own if form == "safetensors" else {"model_state_dict": own, "epoch": 3}
            write(tmp_path / run.label / f"step{step}.{form}", tree)
    done = here("import", "--checkpoints", f"{tmp_path}/*/step*.{form}", "--name", "mine")
    assert done.code == 0, done.err
    ensemble = dynalab.load("mine")
    assert ensemble.steps("l2").tolist() == [0, 3, 6, 9, 12] and len(ensemble.metrics) == 14
    for name in ensemble.metrics:
        np.testing.assert_allclose(
            ensemble.array(name), trained.array(name), rtol=1e-13, atol=1e-15, err_msg=name
        )
    mine, labs = (dynalab.analyze("directions", item).value for item in (ensemble, trained))
    assert [run.rows for run in mine.runs] == [5, 5]
    for one, other in zip(mine.runs, labs.runs, strict=True):
        assert vars(one.whole.measures["relative_similarity"]) == pytest.approx(
            vars(other.whole.measures["relative_similarity"]), rel=1e-9
        )
    assert len(mine.summary.layers) == len(labs.summary.layers)
    weights, numbers = ensemble.group().runs[1].weights, mine.runs[0].whole.weights
    assert weights.steps == (0, 3, 6, 9, 12) and sum(x.size for x in weights.at(6).values()) == numbers


def test_weights_are_read_where_they_stand_as_long_as_they_are_the_same(trained, pythia, tmp_path, here):
    shutil.copytree(pythia / "pythia-14m-seed1", tmp_path / "run")
    assert here("import", "--checkpoints", str(tmp_path / "run"), "--name", "mine").code == 0
    ensemble = dynalab.load("mine")
    stored = sum(path.stat().st_size for path in ensemble.path.rglob("*") if path.is_file())
    assert stored < 20_000
    file = tmp_path / "run" / "step8" / "pytorch_model.bin"
    moved = file.rename(tmp_path / "aside")
    gone = here("analyze", "directions", "mine")
    assert gone.code == 3 and "step8/pytorch_model.bin is gone since it was imported" in gone.err
    assert len(gone.err.splitlines()) == 2 and "analyze" not in gone.out
    content = moved.read_bytes()
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    changed = here("analyze", "directions", "mine")
    assert (
        changed.code == 3 and "pytorch_model.bin has changed since it was imported; import its" in changed.err
    )
    again = here("import", "--checkpoints", str(tmp_path / "run"), "--name", "mine", "--json")
    assert (again.json["id"], again.json["new"]) == (ensemble.id, False)
    kept = here("analyze", "directions", "mine", "--json").json["analyses"][0]["id"]
    assert here("analyze", "directions", "mine", "--json").json["analyses"][0]["id"] == kept
    # Other checkpoints of the same runs and steps are another analysis.
    whole = ensemble.paths.checkpoints.read_text()
    ensemble.paths.checkpoints.write_text(whole + " ")
    assert here("analyze", "directions", "mine", "--json").json["analyses"][0]["id"] != kept
    ensemble.paths.checkpoints.rename(tmp_path / "list.json")
    ensemble.paths.checkpoints.symlink_to(tmp_path / "list.json")
    linked = here("analyze", "directions", "mine", "--force")
    assert linked.code == 3 and "checkpoints.json is damaged: it is a link" in linked.err
    ensemble.paths.checkpoints.unlink()
    # A stranger's list of files is no way to read a pipe, nor is a damaged one a traceback.
    for text in ('{"schema_version": 1, "shapes": 3}', "{", '{"schema_version": 1}', "[]"):
        ensemble.paths.checkpoints.write_text(text)
        damaged = here("analyze", "directions", "mine", "--force")
        assert damaged.code == 3 and "checkpoints.json is damaged" in damaged.err, damaged.err
    name = "gpt_neox.layers.0.mlp.dense_4h_to_h.weight"
    run = {"steps": [0], "files": [[["/a\nb", 1, 1]]]}
    for part in ({"shapes": {}}, {"runs": {"run": run}}, {"runs": {"run": run | {"files": [[]]}}}):
        ensemble.paths.checkpoints.write_text(json.dumps(json.loads(whole) | part))
        damaged = here("analyze", "directions", "mine", "--force")
        assert damaged.code == 3 and "checkpoints.json is damaged" in damaged.err, damaged.err
    other = json.dumps(json.loads(whole) | {"shapes": {name: [7, 7]}})
    ensemble.paths.checkpoints.write_text(other)
    foreign = here("analyze", "directions", "mine", "--force")
    assert foreign.code == 3 and f"does not hold {name} as it was" in foreign.err
    assert here("runs", "rm", ensemble.id, "--yes").code == 0 and file.exists()


@pytest.mark.parametrize("word", ["{}", "{}/*/*.safetensors", "{}/seed{{seed}}/step{{step}}.safetensors"])
def test_no_link_in_a_folder_leads_out_of_it(word, tmp_path, here, outputs):
    theirs, mine = tmp_path / "theirs", write(tmp_path / "mine/step1.safetensors", neox(1))
    own = write(theirs / "seed0/step0.safetensors", neox(0))
    (theirs / "seed0/step2.safetensors").symlink_to(own)  # stays inside
    (theirs / "seed1").symlink_to(mine.parent)
    (theirs / "seed2").mkdir()
    (theirs / "seed2/step1.safetensors").symlink_to(mine)
    refused = here("import", "--checkpoints", word.format(theirs))
    assert refused.code == 2 and f"a link leads out of {theirs}, to {mine}" in refused.err, refused.err
    assert len(refused.err.splitlines()) == 1 and not [*outputs.rglob("run.json")]
    (theirs / "seed1").unlink()
    # What is named itself may be a link.
    assert here("import", "--checkpoints", str(theirs / "seed2/step1.safetensors")).code == 0
    (theirs / "seed2/step1.safetensors").unlink()
    assert here("import", "--checkpoints", word.format(theirs)).code == 0


def test_which_tensors_count():
    shapes = {
        **{"tok_embed.weight": (9, 4), "blocks.0.ln_1.weight": (4,), "blocks.0.ln_1.bias": (4,)},
        **{"blocks.0.attn.weight": (12, 4), "blocks.0.attn.bias": (12,), "conv.weight": (3, 2, 5, 5)},
        # A norm that does not say so, masks that are called biases, weights of letters l and n.
        **{"bn1.weight": (3,), "bn1.bias": (3,), "attn.bias": (1, 1, 8, 8), "kiln.weight": (2, 2)},
        **{"in_proj_weight": (6, 2), "in_proj_bias": (6,), "LayerNorm.weight": (2, 2), "gate_bias": (4,)},
        "ln2.w": (2, 2),
    }
    found = counted(shapes)
    assert [matrix.parameter for matrix in found.matrices] == [
        *("blocks.0.attn.weight", "conv.weight", "kiln.weight", "in_proj_weight")
    ]
    assert found.biases == ("blocks.0.attn.bias", "in_proj_bias", "gate_bias")
    chosen = counted(shapes, re.compile("embed|attn"))
    assert [matrix.parameter for matrix in chosen.matrices] == ["tok_embed.weight", "blocks.0.attn.weight"]
    assert chosen.biases == ("blocks.0.attn.bias",)
    whole = {"a.weight": torch.zeros(3, 3, dtype=torch.int8), "b.weight": torch.ones(0, 3)}
    assert shapes_of(whole | {"c.weight": torch.ones(2, 2)}) == {"c.weight": (2, 2)}
    # Of all precisions the same numbers, and the hash of another tensor is another.
    exact = {"a.weight": torch.arange(-6.0, 6.0).reshape(3, 4)}
    measured = [
        measure({"a.weight": exact["a.weight"].to(kind)}, counted({"a.weight": (3, 4)}), ["a.weight"])
        for kind in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    ]
    assert all(item.values == measured[0].values for item in measured)
    assert len({item.content for item in measured}) == 4


class Pickled:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.place),)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _expanded(path: Path) -> None:
    write(path, {"a.weight": torch.ones(1).expand(1 << 20, 1 << 20)})


def _compressed(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


HOSTILE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated": ("pt", _cut, "is damaged, or no checkpoint"),
    "truncated safetensors": ("safetensors", _cut, "is damaged, or no checkpoint"),
    "code": (
        "pt",
        lambda p: torch.save({"a": Pickled(p.parent / "ran")}, p),
        "mkdir, which only running code restores",
    ),
    "old code": (
        "pt",
        lambda p: p.write_bytes(pickle.dumps({"a": Pickled(p.parent / "ran")}, protocol=2)),
        "mkdir, which only running code restores",
    ),
    "a module": (
        "pt",
        lambda p: torch.save(torch.nn.Linear(2, 2), p),
        "Linear, which only running code restores",
    ),
    "what unpacks to any size": ("pt", _compressed, "its members are compressed"),
    "empty": ("bin", lambda p: p.write_bytes(b""), "is empty"),
    "text": (
        "bin",
        lambda p: p.write_text("no checkpoint at all"),
        "neither safetensors nor what torch.save writes",
    ),
    "a list": ("pt", lambda p: torch.save([torch.ones(2, 2)], p), "no dictionary of tensors; it holds list"),
    "an optimizer": ("pt", lambda p: torch.save({"lr": 0.1}, p), "no dictionary of tensors; it holds lr"),
    "a link to nothing": ("pt", lambda p: (p.unlink(), p.symlink_to("nothing.pt")), "No such file"),
    "a pipe": ("pt", lambda p: (p.unlink(), os.mkfifo(p)), "it is no file"),
    "a shape that is not there": ("pt", _expanded, "has fewer numbers than its shape"),
    "other shapes": (
        "pt",
        lambda p: write(p, {"a.weight": torch.ones(3, 3)}),
        "a.weight: shape (3, 3), and shape (4, 3)",
    ),
    "other names": (
        "pt",
        lambda p: write(p, {"b.weight": torch.ones(4, 3)}),
        "a.weight: no such weights, and shape",
    ),
    "more names": (
        "pt",
        lambda p: write(p, {"a.weight": torch.ones(4, 3), "b.weight": torch.ones(2, 2)}),
        "b.weight: shape (2, 2), and no such weights",
    ),
    "whole numbers": (
        "safetensors",
        lambda p: write(p, {"a.weight": torch.ones(4, 3, dtype=torch.int8)}),
        "no tensor of floating-point numbers with two or more axes counts",
    ),
    "a name of controls": (
        "pt",
        lambda p: write(p, {"a\x1b[2J.weight": torch.ones(4, 3)}),
        "a tensor is called",
    ),
    "the same step twice": (
        "pt",
        lambda p: shutil.copy(p, p.with_name("step09.pt")),
        "run x has two checkpoints of step 9",
    ),
    "a missing shard": (
        "bin",
        lambda p: write(
            p.with_name("step12") / "pytorch_model-00001-of-00002.bin", {"a.weight": torch.ones(4, 3)}
        ),
        "shard 2 of 2 is missing",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_checkpoint_is_one_line_and_nothing_is_left(case, tmp_path, outputs, here):
    suffix, spoil, line = HOSTILE[case]
    for step in (3, 9):
        last = write(tmp_path / "x" / f"step{step}.{suffix}", {"a.weight": torch.randn(4, 3)})
    spoil(last)
    done = here("import", "--checkpoints", str(tmp_path / "x" / "step*"), "--name", "mine")
    assert done.code == 2 and line in done.err, done.err
    assert len(done.err.splitlines()) == 1 and "\x1b" not in done.err and not done.out
    assert not (tmp_path / "x" / "ran").exists()
    assert not list(outputs.glob("imported/mine*")) and not (outputs / "last.json").exists()


def test_weights_that_are_not_finite_are_left_out_and_said(tmp_path, here):
    for step in range(4):
        weights = torch.randn(4, 3)
        weights[0, 0] = torch.nan if step == 2 else torch.inf if step == 3 else 1.0
        write(tmp_path / f"step{step}.pt", {"a.weight": weights, "a.bias": torch.ones(4)})
    done = here("import", "--checkpoints", str(tmp_path / "step*"), "--name", "mine", "--json")
    assert "weights of 2 checkpoints are not finite and are left out: run" in " ".join(done.json["warnings"])
    (run,) = dynalab.load("mine").group().runs
    assert run.weights.steps == (0, 1) and run.grid.tolist() == [0, 1]
    few = here("analyze", "directions", "mine")
    assert few.code == 4 and "a path takes 3: import more of its checkpoints" in few.err


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--checkpoints", "none/*.pt"], 4, "nothing there matches this pattern"),
        (["--checkpoints", "none"], 2, "none: no such file or folder"),
        (["--checkpoints", "x/{run}.pt"], 2, "does not say where the step stands"),
        (["--checkpoints", "x/(?P<step>.*).pt"], 2, "step is 'step3' in x/step3.pt; expected a whole number"),
        (["--checkpoints", "x/(?P<step>\\d+.pt"], 2, "not a regular expression"),
        (["--checkpoints", "x/*.pt", "--weights", "("], 2, "--weights (: not a regular expression"),
        (["--checkpoints", "x/*.pt", "--weights", "conv"], 2, "--weights conv fits none"),
        (["--checkpoints", "x/*.pt", "--run", "run"], 2, "a pattern has them as {run} and {step}"),
        (["--checkpoints", "x/*.pt", "--wide"], 2, "leave out --key, --value, --wide"),
        (["--checkpoints", "x/*.pt", "--model", "network"], 2, "expected MODULE:FUNCTION"),
        (["--checkpoints", "x/*.pt", "--model", "nowhere_at_all:network"], 2, "cannot be imported"),
        (["--checkpoints", "x/*.pt", "--model", "own.py:nothing"], 2, "own.py has no function nothing"),
        (["--checkpoints", "x/*.pt", "--model", "own.py:text"], 2, "expected a torch.nn.Module"),
        (
            ["--checkpoints", "x/*.pt", "--model", "own.py:broken"],
            2,
            "own.py:4: in broken: ZeroDivisionError",
        ),
        (["--checkpoints", "x/*.pt", "--model", "own.py:other"], 2, "weight is missing, which the network"),
        (["--weights", "a", "x.csv"], 2, "--weights: of --checkpoints only"),
        ([], 2, "FILE is missing"),
        (["--checkpoints", "list.csv"], 2, "no column is called checkpoint, checkpoint_path, file"),
        (["--checkpoints", "y"], 4, "no checkpoint in this folder"),
        (["--checkpoints", "z.pt"], 2, "its name has no number that is the step"),
    ],
)
def test_a_mistake_is_a_line_that_says_what_is_legal(words, code, line, tmp_path, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("x/step3.pt"), {"a.weight": torch.ones(4, 3)})
    write(Path("z.pt"), {"a.weight": torch.ones(4, 3)})
    Path("y").mkdir()
    Path("list.csv").write_text("run,step\na,1\n")
    Path("own.py").write_text(
        "import torch\ntext = lambda: 'a network'\ndef broken():\n    return 1 / 0\n"
        "def other():\n    return torch.nn.Linear(2, 2)\n"
    )
    done = here("import", *words)
    assert done.code == code and line in done.err and len(done.err.splitlines()) <= 2, done.err


def test_a_table_names_paths_runs_and_steps_and_has_metrics_beside(tmp_path, here):
    lines = ["path,lr,seed,step,test_loss"]
    for lr, seed, step in ((0.1, 0, 0), (0.1, 0, 5), (0.1, 0, 9), (0.2, 0, 0), (0.2, 0, 5)):
        write(
            tmp_path / f"{lr}{step}.pt",
            {"a.weight": torch.randn(4, 3, generator=torch.Generator().manual_seed(step))},
        )
        lines.append(f"{lr}{step}.pt,{lr},{seed},{step},{1 / (1 + step)}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    done = here("import", "--checkpoints", str(tmp_path / "list.csv"), "--run", "lr,seed", "--name", "mine")
    assert done.code == 0, done.err
    ensemble = dynalab.load("mine")
    assert [run.label for run in ensemble.runs] == ["lr0.1-seed0", "lr0.2-seed0"]
    np.testing.assert_allclose(ensemble.array("test_loss")[0], [1, 1 / 6, 1 / 10])
    assert ensemble.metrics[0] == "test_loss" and "l2" in ensemble.metrics
    assert [run.weights.steps for run in ensemble.group().runs] == [(0, 5, 9), (0, 5)]


def test_a_network_of_ones_own_says_what_counts_and_measures(tmp_path, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def network():\n"
        "    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))\n"
        "    return net, lambda own: {'test_loss': own(torch.arange(7)).square().mean(), 'norm': own[1].bias.norm()}\n"
    )
    for step in range(4):
        torch.manual_seed(step)
        net = torch.nn.Sequential(
            torch.nn.Embedding(7, 4), torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)
        )
        # As torch.compile and a wrapper for several devices name them.
        write(tmp_path / f"step{step}.pt", {f"module.{name}": x for name, x in net.state_dict().items()})
    done = here("import", "--checkpoints", "step*", "--name", "mine", "--model", "own.py:network", "--json")
    assert done.code == 0, done.err
    assert "as the network of --model says 2 as weights (1.weight and 1 more)" in done.json["warnings"][-1]
    ensemble = dynalab.load("mine")
    assert ensemble.array("test_loss")[0, -1] == pytest.approx(
        net.eval()(torch.arange(7)).square().mean().item()
    )
    assert ensemble.array("norm")[0, -1] == pytest.approx(net[1].bias.norm().item())
    # Later nothing is run: the network's parts are there as text.
    (tmp_path / "own.py").write_text("raise SystemExit('was run')")
    found = dynalab.analyze("directions", ensemble).value
    assert {part.part for part in found.summary.kinds} == {"weight", "norm", "embedding", "bias", "head"}
    assert not found.warnings and found.runs[0].whole.weights == sum(p.numel() for p in net.parameters())
    line = provenance._import_command(ensemble)
    assert line == "dynalab import --checkpoints 'step*' --name mine --model own.py:network"
    (tmp_path / "own.py").write_text("raise SystemExit('was run')")
    assert here("runs", "show", "mine").code == 0


def test_a_checkpoint_is_let_go_before_the_next_is_read(pythia, outputs, monkeypatch):
    alive: list[weakref.ref] = []
    read = elsewhere.read

    def reading(files):
        assert not [one for one in alive if one() is not None]
        found = read(files)
        alive[:] = [weakref.ref(x) for x in found.values()]
        return found

    monkeypatch.setattr(elsewhere, "read", reading)
    with pytest.warns(UserWarning, match="from the paths|count"):
        dynalab.import_checkpoints(pythia, "mine")
    assert alive


def test_the_odd_seed_of_a_suite_is_named(tmp_path, here):
    # Eleven seeds of one law, and one whose weights grow as theirs do not.
    for seed in range(12):
        draw = torch.Generator().manual_seed(seed)
        start, move = torch.randn(2, 12, 10, generator=draw)
        for step in range(16):
            size = 1 + 0.05 * step + (0.12 * max(step - 6, 0) if seed == 7 else 0.0)
            noise = 0.05 * torch.randn(12, 10, generator=draw)
            weights = {"layers.0.dense.weight": size * (start + 0.01 * step * move) + noise}
            write(tmp_path / f"pythia-14m-seed{seed}" / f"step{step}" / "model.safetensors", weights)
    assert here("import", "--checkpoints", str(tmp_path), "--name", "suite").code == 0
    words = [
        "n_states=2",
        "restarts=1",
        "n_iter=10",
        "folds=4",
        "stability=false",
        "baselines=false",
        "workers=1",
    ]
    done = here("analyze", "hmm", "suite", *words, "--json")
    assert done.code == 0, done.err
    odd = done.json["analyses"][0]["odd"]
    assert [row["run"].rpartition("/")[2] for row in odd if row["p_adjusted"] < 0.05] == ["pythia-14m-seed7"]
    assert "pythia-14m-seed7 is unlike the other 11" in here("analyze", "hmm", "suite", *words).out


def test_an_import_that_was_killed_leaves_nothing_behind_the_next(tmp_path, here, outputs):
    for step in range(2):
        write(tmp_path / f"a/step{step}.pt", neox(step))
    words = ("import", "--checkpoints", str(tmp_path / "{run}/step{step}.pt"), "--name", "mine")
    assert here(*words).code == 0
    (made,) = (outputs / "imported").glob("mine-*")
    # As a kill in the middle leaves it: under the name that is not yet its own, and not whole.
    half = made.with_name(f".{made.name}.0123456789ab.tmp")
    made.rename(half)
    (half / "config.yaml").unlink()
    assert "no runs" in here("runs", "list").err
    assert here(*words).code == 0
    assert made.is_dir() and not half.exists()
