"""Image files of one's own: their table is written, what cannot be read is said in a line, nothing in them is run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from image_fakes import images_of, write_cifar, write_mnist

from dynalab.cli.app import run
from dynalab.errors import ConfigError
from dynalab.tasks.images import sets
from dynalab.tasks.images.readers import read


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def rewritten(path: Path, change) -> None:
    path.write_bytes(pickle.dumps(change(pickle.loads(path.read_bytes()))))


def own_set(folder: Path):
    data, _ = sets.own_files(folder)
    return data.with_table(sets.Table(60, 20, data.files))


@pytest.mark.parametrize("protocol", [2, 5])
def test_keys_that_are_bytes_are_read(tmp_path, protocol):
    for classes in (10, 100):
        write_cifar(tmp_path, classes)
        data = sets.SETS[f"cifar{classes}"]
        for path in (tmp_path / data.folder).glob("*[0-9h]"):
            entry = {key.encode(): value for key, value in pickle.loads(path.read_bytes()).items()}
            path.write_bytes(pickle.dumps(entry, protocol=protocol))
        pool, _ = read(own_set(tmp_path / data.folder), tmp_path)
        pixels, labels = images_of(f"cifar{classes}", 60, 20)["train"]
        assert np.array_equal(pool.pixels.numpy(), pixels) and pool.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entry: {**entry, "data": Evil()}, "it names pathlib"),
        (lambda entry: {"labels": [0]}, "no 'data' in it"),
        (lambda entry: [1, 2], "cannot be read as a file of CIFAR"),
        (lambda entry: {**entry, "data": entry["data"].astype(float)}, "expected 3072 bytes each"),
        (lambda entry: {**entry, "data": entry["data"][:, :100]}, "expected 3072 bytes each"),
        (lambda entry: {**entry, "labels": ["cat"] * 20}, "20 images and labels (20,) of <U3"),
        (lambda entry: {**entry, "labels": [1]}, "20 images and labels (1,)"),
    ],
)
def test_what_is_no_file_of_cifar_is_said_in_a_line_and_not_run(tmp_path, monkeypatch, change, said):
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    rewritten(folder / "test_batch", change)
    with pytest.raises(ConfigError) as caught:
        read(own_set(folder), tmp_path)
    line = str(caught.value)
    assert said in line and str(folder / "test_batch") in line and len(line.splitlines()) == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("harm", [lambda text: b"", lambda text: text[:30], lambda text: b"abcd" + text[4:]])
def test_what_is_no_file_of_mnist_is_said_in_a_line(tmp_path, harm):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ConfigError, match="train-images-idx3-ubyte: cannot be read as a file of MNIST"):
        read(own_set(tmp_path), tmp_path)


@pytest.mark.parametrize("write", [write_cifar, write_mnist])
def test_the_table_of_ones_own_files_is_written(write, tmp_path, capsys):
    table = write(tmp_path)
    (folder,) = [
        path.parent for path in tmp_path.rglob("t*") if path.name in ("test_batch", "t10k-labels-idx1-ubyte")
    ]
    assert run(["data", "checksum", str(folder), "--to", str(tmp_path / "mine.json")]) == 0
    said = capsys.readouterr()
    assert json.loads((tmp_path / "mine.json").read_text()) == json.loads(table.read_text())
    assert f"task.root={tmp_path} task.checksums={tmp_path / 'mine.json'}" in said.err
    # From the folder of data sets as well, and to standard output.
    assert run(["data", "checksum", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"] == 60
    assert run(["data", "checksum", str(tmp_path / "nowhere")]) == 2
    assert run(["data", "checksum", str(tmp_path), "--to", str(tmp_path)]) == 2
    assert run(["data", "checksum", str(folder), "--to", str(tmp_path / "mine.json")]) == 2


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"train": ["data_batch_1"], "test": 20, "files": {}}',
        '{"train": 1, "test": 2, "files": {"../x": "0"}}',
    ],
)
def test_a_table_that_is_none_says_what_one_holds(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        sets.read_table(str(tmp_path / "table.json"))
    assert "two numbers of examples" in str(caught.value) and "data checksum DIR --to FILE" in str(
        caught.value
    )


def test_the_list_agrees_with_what_verifying_says(tmp_path, monkeypatch, capsys):
    table = write_mnist(tmp_path)
    monkeypatch.setitem(sets.SETS, "mnist", sets.SETS["mnist"].with_table(sets.read_table(str(table))))

    def status() -> str:
        run(["data", "list", "--root", str(tmp_path), "--json"])
        return {item["name"]: item["status"] for item in json.loads(capsys.readouterr().out)["sets"]}["mnist"]

    assert status() == "present"
    path = tmp_path / "MNIST/raw/t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert run(["data", "verify", "mnist", "--root", str(tmp_path)]) == 2
    capsys.readouterr()
    assert status() == "damaged"
