"""`dynalab data`: what is there, downloading, verifying."""

import json
import subprocess
import sys
import tarfile
from urllib.error import URLError

import pytest
from image_fakes import write_cifar, write_mnist

from dynalab.cli import app
from dynalab.tasks.images import sets

NAMES = ["digits", "mlm", "mnist", "cifar10", "cifar100"]


@pytest.fixture
def dynalab(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(sets.VARIABLE, raising=False)
    monkeypatch.setitem(app.COMMANDS, "data", ("dynalab.cli.data", "List, download and verify data sets."))

    def run(*words):
        code = app.run(["data", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def use_table(monkeypatch, name, path):
    """Let a small data set stand for the published one."""
    monkeypatch.setitem(sets.SETS, name, sets.SETS[name].with_table(sets.read_table(str(path))))


def test_list_says_what_is_there_and_where(dynalab, tmp_path, monkeypatch):
    table = write_cifar(tmp_path / "own", 100)
    use_table(monkeypatch, "cifar100", table)
    write_mnist(tmp_path / "own")
    (tmp_path / "own/MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    code, out, _ = dynalab("list", "--root", "own", "--json")
    answer = json.loads(out)
    assert code == 0
    assert next(iter(answer)) == "schema_version"
    assert answer["root"] == str(tmp_path / "own")
    assert [item["name"] for item in answer["sets"]] == NAMES
    states = {item["name"]: item["status"] for item in answer["sets"]}
    assert states == dict(zip(NAMES, ["bundled", "bundled", "incomplete", "missing", "present"], strict=True))
    monkeypatch.setenv(sets.VARIABLE, str(tmp_path / "own"))
    code, out, _ = dynalab("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["name", *NAMES]
    assert f"present     {tmp_path}/own/cifar-100-python" in out


def test_listing_and_verifying_import_no_torch(tmp_path):
    code = (
        "import sys\nfrom dynalab.cli import app\n"
        "app.COMMANDS['data'] = ('dynalab.cli.data', '')\n"
        "app.run(['data', 'list']), app.run(['data', 'verify', 'cifar10'])\n"
        "from dynalab.tasks import cifar, digits, mnist\n"
        "from dynalab.models import resnet18, resnet20, si_convnet, si_mlp\n"
        "cifar.Config(), digits.Config(), mnist.Config().train_size(), resnet18.Config()\n"
        "print({'torch', 'torchvision', 'sklearn', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_verify_checks_every_file(dynalab, tmp_path):
    table = write_cifar(tmp_path / "data")
    words = ("verify", "cifar10", "--checksums", str(table))
    code, out, err = dynalab(*words, "--json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert answer["ok"]
    assert {item["status"] for item in answer["files"]} == {"ok"}
    assert len(answer["files"]) == 4
    path = tmp_path / "data/cifar-10-batches-py/test_batch"
    path.write_bytes(path.read_bytes() + b"x")
    code, out, err = dynalab(*words)
    assert code == 2
    assert "test_batch    damaged" in out
    assert "data_batch_1  ok" in out
    assert "test_batch is not what its checksum says" in err
    path.unlink()
    code, out, err = dynalab(*words)
    assert code == 2
    assert "test_batch    missing" in out
    assert "lacks test_batch" in err


def test_verify_uses_the_published_table(dynalab, tmp_path):
    write_cifar(tmp_path / "data", 100)
    code, out, _ = dynalab("verify", "cifar100", "--json")
    assert code == 2
    assert {item["status"] for item in json.loads(out)["files"]} == {"damaged"}
    code, _, err = dynalab("verify", "mnist")
    assert code == 2
    assert str(tmp_path / "data/MNIST/raw") in err


def test_the_published_tables_are_torchvisions():
    from torchvision import datasets

    for kind, name in ((datasets.CIFAR10, "cifar10"), (datasets.CIFAR100, "cifar100")):
        data = sets.SETS[name]
        wanted = dict([*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]])
        assert data.files == wanted
        assert data.folder == kind.base_folder
    assert [f"{name}.gz" for name in sets.SETS["mnist"].files] == [
        name for name, _ in datasets.MNIST.resources
    ]


def test_unknown_and_bundled_names(dynalab):
    for verb in ("fetch", "verify"):
        code, _, err = dynalab(verb, "cifar")
        assert code == 2
        assert "did you mean cifar10?" in err
        code, _, err = dynalab(verb, "digits")
        assert code == 2
        assert "comes with dynalab" in err


def test_fetch_without_a_network_says_what_else_can_be_done(dynalab, tmp_path, monkeypatch):
    def refuse(*arguments, **keys):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", refuse)
    for name, folder in (("cifar10", "cifar-10-batches-py"), ("mnist", "MNIST/raw")):
        code, out, err = dynalab("fetch", name)
        assert (code, out) == (2, "")
        lines = err.splitlines()
        assert len(lines) == 3
        assert "could not be downloaded" in lines[1]
        assert str(tmp_path / "data" / folder) in lines[2]


def test_fetch_downloads_unpacks_and_repairs(dynalab, tmp_path, monkeypatch):
    from torchvision import datasets

    table = write_cifar(tmp_path / "server")
    use_table(monkeypatch, "cifar10", table)
    packed = tmp_path / "server/cifar-10-python.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(tmp_path / "server/cifar-10-batches-py", "cifar-10-batches-py")
    files = sets.SETS["cifar10"].files
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", sets.md5(packed))
    monkeypatch.setattr(
        datasets.CIFAR10, "train_list", [[k, v] for k, v in files.items() if k.startswith("data")]
    )
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", files["test_batch"]]])
    meta = {**datasets.CIFAR10.meta, "md5": files["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    calls = []

    def serve(url, path, chunk_size=0):
        calls.append(url)
        with open(path, "wb") as file:
            file.write(packed.read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", serve)
    code, out, _ = dynalab("fetch", "cifar10", "--root", "mine")
    assert (code, out.strip()) == (0, str(tmp_path / "mine/cifar-10-batches-py"))
    assert dynalab("verify", "cifar10", "--root", "mine")[0] == 0
    assert len(calls) == 1
    (tmp_path / "mine/cifar-10-batches-py/test_batch").write_bytes(b"damaged")
    code, out, err = dynalab("fetch", "cifar10", "--root", "mine", "--json")
    assert json.loads(out)["status"] == "present"
    assert "test_batch is not what its checksum says; it is replaced" in err
    assert dynalab("verify", "cifar10", "--root", "mine")[0] == 0
    # What is whole is left alone.
    fetched = len(calls)
    assert dynalab("fetch", "cifar10", "--root", "mine")[0] == 0
    assert len(calls) == fetched


def test_a_root_that_cannot_be_made(dynalab, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = dynalab("fetch", "mnist", "--root", "file/data")
    assert code == 3
    assert "cannot write" in err
