"""Image folders as IterableDataset and DataLoader."""

import json

import numpy as np
import pytest
from PIL import Image

from agnostic.data import ImageFolder, SkippedFiles
from agnostic.errors import InvalidInput
from tests.data.pictures import folder as make_folder

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402 - after importorskip


def shift(image, seed, epoch, index):
    """An augmentation that shows its arguments; worker processes find it by name."""
    return image + np.float32(seed + 10 * epoch + 100 * index)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = make_folder(tmp_path_factory.mktemp("images") / "set", {"a": 12, "b": 11})
    return ImageFolder(root, (6, 9), augmentation=shift)


def epochs(loader, count):
    return [(x.numpy().transpose(0, 2, 3, 1), y.numpy()) for _ in range(count) for x, y in loader]


def plain(images, count):
    batches = images.batches(4, seed=2)
    return [pair for _ in range(count) for pair in batches]


def assert_equal(a, b):
    assert len(a) == len(b)
    for (x, y), (u, v) in zip(a, b, strict=False):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def test_iterable_dataset(images):
    stream = images.batches(4, seed=2).torch()
    assert isinstance(stream, IterableDataset)
    assert len(stream) == 6
    x, y = next(iter(stream))
    assert x.shape == (4, 3, 6, 9)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert_equal(epochs(images.batches(4, seed=2).torch(), 2), plain(images, 2))
    loader = DataLoader(images.batches(4, seed=2).torch(), batch_size=None, num_workers=2)
    assert_equal(epochs(loader, 1), plain(images, 1))


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_loader_is_the_plain_iterator(images, num_workers):
    loader = images.batches(4, seed=2).dataloader(num_workers=num_workers)
    assert isinstance(loader, DataLoader)
    assert len(loader) == 6
    assert_equal(epochs(loader, 2), plain(images, 2))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_resumes_at_the_very_next_sample(images, num_workers):
    first = images.batches(4, seed=2).dataloader(num_workers=num_workers)
    iterator = iter(first)
    for _ in range(2):
        next(iterator)
    state = json.loads(json.dumps(first.state_dict()))
    assert state["position"] == 8
    second = images.batches(4).dataloader(num_workers=num_workers)
    second.load_state_dict(state)
    assert_equal(epochs(second, 2), plain(images, 2)[2:])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_reports_what_it_skipped(tmp_path, num_workers):
    root = make_folder(tmp_path / "s", {"a": 8})
    for name in ("0002", "0003", "0006"):
        (root / "a" / f"{name}.jpg").write_bytes(b"")
    batches = ImageFolder(root, (6, 9), on_error="skip").batches(2, shuffle=False)
    with pytest.warns(SkippedFiles, match="skipped 3 of 8"):
        assert [len(x) for x, _ in batches.dataloader(num_workers=num_workers)] == [2, 2, 1]


def test_a_bad_file_is_named_by_worker_processes(tmp_path):
    root = make_folder(tmp_path / "s", {"a": 2})
    (root / "a" / "0001.jpg").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"0001.jpg': it is empty"):
        list(ImageFolder(root, (6, 9)).batches(2).dataloader(num_workers=1))


@pytest.mark.parametrize("name", ["batch_size", "shuffle", "drop_last", "collate_fn", "persistent_workers"])
def test_what_the_batches_decide(images, name):
    with pytest.raises(InvalidInput, match=name):
        images.batches(4).dataloader(**{name: True, "num_workers": 1})


def test_without_labels(images):
    unlabelled = ImageFolder(images.directory, (6, 9), class_mode=None, dtype="uint8")
    x = next(iter(unlabelled.batches(4).dataloader()))
    assert x.dtype == torch.uint8
    assert x.shape == (4, 3, 6, 9)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("color", ["rgb", "grayscale"])
def test_torch_resizes_within_one(tmp_path, interpolation, color):
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for name, size in (
        ("wide.jpg", (400, 301)),
        ("small.png", (20, 30)),
        ("large.jpg", (1204, 1003)),
        ("even.jpg", (1600, 1600)),
    ):
        noisy = Image.fromarray(rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        exif = Image.Exif()
        exif[0x0112] = 6
        noisy.save(tmp_path / "a" / name, quality=90, exif=exif)
    options = {"dtype": "uint8", "interpolation": interpolation, "color": color, "scaled": False}
    exact, quick = (ImageFolder(tmp_path, (45, 50), resizer=r, **options) for r in ("pillow", "torch"))
    for i in range(4):
        error = np.abs(exact[i].astype(int) - quick[i])
        assert error.max() <= 1, exact.files[i]


def test_what_torch_does_not_resize(images):
    for options in ({"interpolation": "lanczos"}, {"color": "rgba"}):
        with pytest.raises(InvalidInput, match="use 'pillow'"):
            ImageFolder(images.directory, resizer="torch", **options)


def test_transforms_of_torchvision_are_augmentations(images):
    """Each image has draws of its own, the same for any number of threads, and torch's global stream is left alone."""
    v2 = pytest.importorskip("torchvision.transforms.v2")
    transform = v2.Compose(
        [v2.RandomHorizontalFlip(), v2.ColorJitter(0.3), v2.RandomResizedCrop((6, 9)), v2.GaussianNoise()]
    )
    for dtype in ("uint8", "float32"):
        changed = ImageFolder(images.directory, (6, 9), augmentation=transform, dtype=dtype)
        state = torch.get_rng_state()
        one = plain(changed, 2)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(3)
        again = changed.batches(4, seed=2, workers=0)
        assert_equal(one, [pair for _ in range(2) for pair in again])
        assert one[0][0].dtype == dtype
        assert not np.array_equal(changed.sample(3, seed=2), changed.sample(3, seed=3))
        assert not np.array_equal(changed.sample(3, seed=2), changed.sample(3, seed=2, epoch=1))
    flip = ImageFolder(images.directory, (6, 9), augmentation=v2.RandomHorizontalFlip(p=1.0))
    np.testing.assert_array_equal(flip.sample(5), flip[5][:, ::-1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v2: v2.RandomCrop(4), r"turned an image of \(6, 9, 3\) float32 into \(4, 4, 3\) float32"),
        (lambda v2: v2.ToDtype(torch.float64), "float64"),
        (lambda v2: torch.nn.Flatten(0), r"made shape \(162,\) of a \(C, H, W\) tensor"),
        (lambda v2: v2.ToPILImage(), "made Image of a"),
    ],
    ids=["crop", "dtype", "shape", "type"],
)
def test_what_a_transform_makes_is_checked(images, make, message):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    with pytest.raises(InvalidInput, match=message):
        ImageFolder(images.directory, (6, 9), augmentation=make(v2)).sample(0)


def test_class_weights_make_classes_count_alike_in_a_loss(tmp_path):
    images = ImageFolder(make_folder(tmp_path / "set", {"a": 9, "b": 3}), (6, 9))
    weight = torch.tensor(list(images.class_weights().values()), dtype=torch.float64)
    logits = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(12, 2)
    loss = torch.nn.CrossEntropyLoss(weight)(logits, torch.from_numpy(images.labels))
    assert loss.item() == pytest.approx((np.log(1 + np.exp(-1)) + np.log(1 + np.exp(1))) / 2, rel=1e-12)
