"""Tasks of images: reading, splits, noise, augmentation, batches, and what the runs share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from image_fakes import images_of, write_cifar, write_mnist
from stored import bits, difference, only_ensemble

from dynalab import train
from dynalab.config.compose import compose
from dynalab.config.ensemble import from_tree
from dynalab.errors import ConfigError
from dynalab.tasks import cifar, classification, digits, mnist
from dynalab.tasks.base import Batch
from dynalab.tasks.images import augment, draws
from dynalab.training.streams import Streams

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def streams(*seeds):
    return [Streams.from_seed(seed) for seed in seeds]


def data_of(task, *seeds, batch_size=None, eval_size=None):
    return task.data(streams(*seeds), batch_size=batch_size, eval_size=eval_size, device=CPU)


def whole(data, split):
    batches = list(data.eval_batches(split))
    return torch.cat([b.inputs for b in batches], 1), torch.cat([b.targets for b in batches], 1)


@pytest.fixture
def cifar10(tmp_path):
    table = write_cifar(tmp_path / "data")
    return {"root": str(tmp_path / "data"), "checksums": str(table)}


@pytest.mark.parametrize("classes", [10, 100])
def test_cifars_own_format_is_read(classes, tmp_path):
    table = write_cifar(tmp_path, classes, 60, 20)
    config = cifar.Config(classes=classes, root=str(tmp_path), checksums=str(table))
    config.check_data()
    assert config.train_size() == 60
    task = cifar.build(config)
    assert (task.spec.kind, task.spec.symbols, task.spec.classes) == ("image", 3072, classes)
    assert task.spec.shape == (3, 32, 32)
    data = data_of(task, 0, 1)
    for split, (pixels, labels) in images_of(f"cifar{classes}", 60, 20).items():
        images, targets = whole(data, split)
        assert images.shape == (2, len(labels), 3072)
        for s in range(2):
            np.testing.assert_allclose(images[s], pixels / 255, rtol=1e-6, atol=1e-7)
            assert targets[s].tolist() == labels.tolist()


def test_mnists_own_format_is_read(tmp_path):
    table = write_mnist(tmp_path)
    task = mnist.build(mnist.Config(root=str(tmp_path), checksums=str(table)))
    assert task.spec.shape == (1, 28, 28)
    images, targets = whole(data_of(task, 3), "test")
    pixels, labels = images_of("mnist", 60, 20)["test"]
    np.testing.assert_allclose(images[0], pixels / 255, rtol=1e-6, atol=1e-7)
    assert targets[0].tolist() == labels.tolist()


def test_a_missing_set_says_where_it_looked_and_both_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DYNALAB_DATA", str(tmp_path / "shared"))
    with pytest.raises(ConfigError) as caught:
        cifar.Config().check_data()
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert str(tmp_path / "shared" / "cifar-10-batches-py") in lines[0]
    assert "task=cifar" in lines[0]
    assert "dynalab data fetch cifar10" in lines[1]
    assert "data_batch_5" in lines[1]
    with pytest.raises(ConfigError, match="mine/MNIST/raw"):
        mnist.Config(root="mine").check_data()
    monkeypatch.delenv("DYNALAB_DATA")
    with pytest.raises(ConfigError, match=str(tmp_path / "data" / "cifar-100-python")):
        cifar.Config(classes=100).check_data()


def test_what_lacks_is_named_and_damage_is_refused(cifar10, tmp_path):
    folder = tmp_path / "data" / "cifar-10-batches-py"
    config = cifar.Config(**cifar10)
    (folder / "data_batch_2").write_bytes(b"no pickle")
    with pytest.raises(ConfigError, match="data_batch_2 is not what its checksum says"):
        data_of(cifar.build(config), 0)
    (folder / "data_batch_2").unlink()
    with pytest.raises(ConfigError, match="CIFAR-10 lacks data_batch_2;"):
        config.check_data()
    (tmp_path / "data" / "MNIST").mkdir()
    table = write_mnist(tmp_path / "other")
    path = tmp_path / "other" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ConfigError, match="train-images-idx3-ubyte is not what"):
        data_of(mnist.build(mnist.Config(root=str(tmp_path / "other"), checksums=str(table))), 0)


def test_the_published_table_refuses_other_files(tmp_path):
    write_cifar(tmp_path, 100)
    config = cifar.Config(classes=100, root=str(tmp_path))
    config.check_data()  # the files are there ...
    with pytest.raises(ConfigError, match="train, test, meta is not what its checksum says"):
        data_of(cifar.build(config), 0)  # ... but are others


def test_a_table_stands_for_its_files(cifar10, tmp_path):
    config = cifar.Config(**cifar10)
    assert set(config.fingerprint()) == {"checksums"}
    assert cifar.Config().fingerprint() == {}
    moved = tmp_path / "elsewhere.json"
    moved.write_text(Path(cifar10["checksums"]).read_text())
    assert cifar.Config(root="x", checksums=str(moved)).fingerprint() == config.fingerprint()
    moved.write_text(moved.read_text().replace('"train": 60', '"train": 59'))
    changed = cifar.Config(root=cifar10["root"], checksums=str(moved))
    assert changed.fingerprint() != config.fingerprint()
    with pytest.raises(ConfigError, match=r"holds 60 images.*table says 59"):
        data_of(cifar.build(changed), 0)
    moved.write_text("{}")
    with pytest.raises(ConfigError, match=r"task\.checksums=.*train, test and files"):
        changed.fingerprint()


def test_digits_are_split_by_seed_and_disjoint():
    task = digits.build(digits.Config(n_train=500))
    data = data_of(task, 0, 1, 0)
    assert data.train_batch(0).inputs.shape == (3, 500, 64)
    images, labels = whole(data, "test")
    assert images.shape == (3, 297, 64)
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])
    order = streams(0)[0].numpy("split").permutation(1797)
    from sklearn.datasets import load_digits

    bundle = load_digits()
    np.testing.assert_allclose(data.train_batch(0).inputs[0], bundle.data[order[:500]] / 16, atol=1e-7)
    np.testing.assert_allclose(images[0], bundle.data[order[-297:]] / 16, atol=1e-7)
    assert labels[0].tolist() == bundle.target[order[-297:]].tolist()
    # More training images leave the held-out ones as they are.
    assert torch.equal(whole(data_of(digits.build(digits.Config()), 0), "test")[0][0], images[0])


def test_subsets_of_files_are_drawn_by_the_split_stream(cifar10):
    data = data_of(cifar.build(cifar.Config(n_train=13, **cifar10)), 4, 9)
    pixels, labels = images_of("cifar10", 60, 20)["train"]
    batch = data.train_batch(0)
    for s, seed in enumerate((4, 9)):
        order = streams(seed)[0].numpy("split").permutation(60)[:13]
        np.testing.assert_allclose(batch.inputs[s], pixels[order] / 255, atol=1e-6)
        assert batch.targets[s].tolist() == labels[order].tolist()
    assert data.train_batch(7) is batch


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_label_noise_is_exact_uniform_and_never_right(share):
    clean = torch.arange(2000).remainder(5).expand(3, -1)
    noisy = draws.noisy_labels(clean, share, 5, streams(0, 1, 0))
    wrong = noisy != clean
    assert wrong.sum(1).tolist() == [share * 2000] * 3
    assert torch.equal(noisy[0], noisy[2])
    if not share:
        assert noisy is clean
        return
    assert not torch.equal(noisy[0], noisy[1])
    moves = ((noisy - clean) % 5)[0][wrong[0]]
    counts = torch.bincount(moves, minlength=5).tolist()
    assert counts[0] == 0
    expected = share * 2000 / 4
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts[1:])


def test_noise_is_on_training_images_only_and_fixed_for_a_run():
    clean = data_of(digits.build(digits.Config(n_train=300)), 0, 1)
    noisy = data_of(digits.build(digits.Config(n_train=300, label_noise=0.2, input_noise=0.4)), 0, 1)
    assert all(torch.equal(a, b) for a, b in zip(whole(clean, "test"), whole(noisy, "test"), strict=True))
    added = noisy.train_batch(0).inputs - clean.train_batch(0).inputs
    assert added.std().item() == pytest.approx(0.4, rel=0.02)
    assert not torch.allclose(added[0], added[1])
    wrong = noisy.train_batch(0).targets != clean.train_batch(0).targets
    assert wrong.sum(1).tolist() == [60, 60]
    # Batches and evaluation see the same noisy examples as the full batch.
    images, targets = whole(noisy, "train")
    assert torch.equal(images, noisy.train_batch(0).inputs)
    assert torch.equal(targets, noisy.train_batch(0).targets)
    small = data_of(
        digits.build(digits.Config(n_train=300, label_noise=0.2, input_noise=0.4)), 0, 1, batch_size=300 // 4
    )
    rows = torch.cat([small.train_batch(step).inputs for step in range(4)], 1)
    for s in range(2):
        assert torch.equal(rows[s].sort(0).values, images[s].sort(0).values)


@pytest.mark.parametrize("seeds", [(0, 1), (5, 1, 0), (1,)])
def test_batches_do_not_depend_on_the_neighbours(seeds, cifar10):
    fields = {"augment": "crop_flip", "label_noise": 0.3, "n_train": 40, **cifar10}
    task = cifar.build(cifar.Config(**fields))
    alone = data_of(task, 1, batch_size=7)
    data = data_of(task, *seeds, batch_size=7)
    place = seeds.index(1)
    for step in (0, 5, 6, 23, 2):
        one, many = alone.train_batch(step), data.train_batch(step)
        assert many.inputs.shape[:2] == (len(seeds), 7 if step % 6 < 5 else 5)
        assert torch.equal(one.inputs[0], many.inputs[place])
        assert torch.equal(one.targets[0], many.targets[place])


@pytest.mark.parametrize("border", ["zeros", "reflect"])
def test_crops_and_flips_are_torchvisions(border):
    from torchvision.transforms.v2 import functional as tv

    shape = (3, 12, 10)
    images = torch.randint(
        0, 256, (2, 40, 360), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    numbers = augment.draw(streams(3, 4), 17, 40)
    assert numbers[..., :2].min() == 0
    assert numbers[..., :2].max() == 8
    got = augment.crop_flip(images, shape, numbers, border)
    mode = "constant" if border == "zeros" else "reflect"
    for s in range(2):
        for b in range(40):
            down, right, flip = numbers[s, b].tolist()
            wanted = tv.crop(tv.pad(images[s, b].view(shape), [4], padding_mode=mode), down, right, 12, 10)
            wanted = tv.horizontal_flip(wanted) if flip else wanted
            assert torch.equal(got[s, b].view(shape), wanted)


def test_augmentation_is_a_function_of_seed_and_step(cifar10):
    first = augment.draw(streams(0, 1), 5, 30)
    assert torch.equal(augment.draw(streams(1), 5, 30)[0], first[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(augment.draw(streams(0), 6, 30)[0], first[0])
    assert 0 < first[..., 2].float().mean() < 1
    task = cifar.build(cifar.Config(augment="crop_flip", **cifar10))
    data = data_of(task, 0)  # full batch: the same images, moved anew at every step
    assert not torch.equal(data.train_batch(0).inputs, data.train_batch(1).inputs)
    assert torch.equal(data.train_batch(1).inputs, data.train_batch(1).inputs)
    plain = data_of(cifar.build(cifar.Config(**cifar10)), 0)
    assert all(torch.equal(a, b) for a, b in zip(whole(data, "train"), whole(plain, "train"), strict=True))


def test_normalisation(cifar10):
    pixels = torch.from_numpy(images_of("cifar10", 60, 20)["train"][0]) / 255
    data = data_of(cifar.build(cifar.Config(normalise="channel", **cifar10)), 0)
    from torchvision.transforms.v2 import functional as tv

    wanted = tv.normalize(pixels.view(60, 3, 32, 32), [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
    torch.testing.assert_close(data.train_batch(0).inputs[0], wanted.flatten(1), rtol=1e-5, atol=1e-5)
    images = data_of(cifar.build(cifar.Config(normalise="pixel", **cifar10)), 0).train_batch(0).inputs[0]
    assert images.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(images.std(0, correction=0), torch.ones(3072), rtol=1e-4, atol=1e-4)
    constant = data_of(digits.build(digits.Config(normalise="pixel")), 0).train_batch(0).inputs
    assert constant.isfinite().all()
    channel = whole(data_of(digits.build(digits.Config(normalise="channel")), 0), "train")[0]
    assert channel.mean().abs() < 0.01
    assert abs(channel.std() - 1) < 0.01


def storage_bytes(root):
    """Bytes of all tensors that an object holds, each storage once."""
    seen, total, stack = set(), {}, [root]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            total[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        elif isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list | tuple):
            stack += item
        elif hasattr(item, "__dict__"):
            stack += vars(item).values()
    return sum(total.values())


def test_images_are_shared_by_the_runs(cifar10):
    pixels = 80 * 3072
    for fields, per_run in (({}, 8), ({"n_train": 30, "label_noise": 0.5}, 16 * 60)):
        task = cifar.build(cifar.Config(**fields, **cifar10))
        held = {n: storage_bytes(data_of(task, *range(n), batch_size=8)) for n in (1, 2, 20)}
        assert held[20] - held[2] <= 18 * per_run
        assert pixels <= held[1] < pixels + 40_000
    data = data_of(cifar.build(cifar.Config(**cifar10)), *range(20), batch_size=8)
    for split in ("train", "test"):
        for batch in data.eval_batches(split):
            assert batch.inputs.stride(0) == 0
            assert batch.targets.stride(0) == 0
    assert data_of(cifar.build(cifar.Config(**cifar10)), 0, 1).train_batch(0).inputs.stride(0) == 0


def test_evaluation_is_in_pieces_that_do_not_depend_on_the_runs():
    task = digits.build(digits.Config(n_train=1500))
    for seeds in ((0,), tuple(range(5))):
        sizes = [b.size for b in data_of(task, *seeds).eval_batches("train")]
        assert sizes == [750, 750]
        assert [b.size for b in data_of(task, *seeds, eval_size=100).eval_batches("test")] == [100]
    batches = data_of(task, 0).eval_batches("train")
    assert len(batches) == 2
    assert len(batches[1:]) == 1
    assert torch.equal(batches[1].inputs, list(batches)[1].inputs)


def test_losses_and_accuracy():
    outputs = torch.randn(3, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 4, (3, 7), generator=torch.Generator().manual_seed(1))
    onehot = torch.nn.functional.one_hot(targets, 4)
    half = 0.5 * ((outputs - onehot) ** 2).sum(2).mean(1)
    torch.testing.assert_close(classification.half_squared_error(outputs, targets), half)
    torch.testing.assert_close(classification.mean_squared_error(outputs, targets), half * 2 / 4)
    for s in range(3):
        wanted = torch.nn.functional.cross_entropy(outputs[s], targets[s])
        torch.testing.assert_close(classification.cross_entropy(outputs, targets)[s], wanted)
    assert (
        classification.accuracy(outputs, targets)[0] == (outputs[0].argmax(1) == targets[0]).double().mean()
    )
    task, batch = digits.build(digits.Config(loss="mse")), Batch(outputs, targets)
    torch.testing.assert_close(task.loss(outputs, batch), half)
    task = digits.build(digits.Config())
    torch.testing.assert_close(task.loss(outputs, batch), classification.cross_entropy(outputs, targets))
    assert set(task.metrics(outputs, batch)) == {"accuracy"}


@pytest.mark.parametrize(
    ("module", "fields", "message"),
    [
        (digits, {"n_train": 1600}, r"task\.n_train=1600: expected an integer from 1 to 1500"),
        (digits, {"n_test": 0}, r"task\.n_test=0"),
        (digits, {"label_noise": 1.5}, r"task\.label_noise=1\.5.*0 to 1"),
        (digits, {"input_noise": -1.0}, r"task\.input_noise=-1\.0"),
        (digits, {"loss": "msee"}, r"task\.loss=msee.*cross_entropy, stablemax or mse.*did you mean mse"),
        (digits, {"normalise": "chanel"}, r"task\.normalise=chanel.*did you mean channel"),
        (mnist, {"n_train": 60001}, r"task\.n_train=60001: expected an integer from 1 to 60000"),
        (cifar, {"classes": 20}, r"task\.classes=20: expected 10 or 100"),
        (cifar, {"augment": "flip"}, r"task\.augment=flip.*none or crop_flip"),
        (cifar, {"border": "wrap"}, r"task\.border=wrap.*zeros or reflect"),
        (cifar, {"checksums": "/nowhere.json"}, r"task\.checksums=/nowhere\.json"),
    ],
)
def test_bad_values_are_named(module, fields, message):
    with pytest.raises(ConfigError, match=message):
        module.Config(**fields).train_size()


EXPERIMENTS = [
    "hu2023_mnist",
    "hu2023_cifar",
    "hu2023_cifar_destabilised",
    "liu2023_omnigrok",
    "loshchilov2019_decay_digits",
]


@pytest.mark.parametrize(
    "words",
    [
        *(f"task={name}" for name in ("digits", "mnist", "cifar")),
        *(f"experiment={name}" for name in EXPERIMENTS),
    ],
)
def test_shipped_settings_compose(words):
    for more in ([], ["optimizer=adam"], ["optimizer=sgd"], ["optimizer=adamw"]):
        if words.startswith("experiment") and more:
            continue
        config = from_tree(compose([words, *more]))
        assert config.optimizer.lr is not None
        assert config.task.train_size() > 0


def test_a_run_on_cifar_keeps_its_bits(tmp_path, cifar10):
    """Augmentation, label noise, batch statistics: alone, beside others, and in pieces."""
    words = [
        "task=cifar",
        f"task.root={cifar10['root']}",
        f"task.checksums={cifar10['checksums']}",
        "task.n_train=24",
    ]
    words += [
        "task.label_noise=0.2",
        "model.width=8",
        "train.batch_size=10",
        "eval.every=3",
        "eval.size=6",
        "launcher=inline",
    ]

    def trained(folder, *more):
        train([*words, "train.steps=6", *more], outputs=folder)
        return bits(only_ensemble(folder))

    together = trained(tmp_path / "together", "seed=0..2", "compute.width=3")
    alone = trained(tmp_path / "alone", "seed=1")
    assert difference(together["s0001"], alone["s0001"]) == []
    trained(tmp_path / "pieces", "seed=1..2", "train.steps=3")
    pieces = trained(tmp_path / "pieces", "seed=1..2")
    assert all(difference(together[label], run) == [] for label, run in pieces.items())


def test_a_missing_set_stops_the_command_before_it_writes(tmp_path, cli, outputs):
    answer = cli("train", "task=cifar", "seed=0", cwd=tmp_path, DYNALAB_DATA=str(tmp_path / "none"))
    assert answer.code == 2
    assert "dynalab data fetch cifar10" in answer.err
    assert str(tmp_path / "none" / "cifar-10-batches-py") in answer.err
    assert not list(outputs.glob("cifar/*"))
