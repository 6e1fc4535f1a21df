"""The same samples in every form that a data set has give the same rows."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.extract.samples import samples_of
from agnostic.files import write_png
from tests.engines import ENGINES, run_on_engine

torch = pytest.importorskip("torch")
pytest.importorskip("zarr")
IMAGES = np.random.default_rng(0).integers(0, 256, (11, 9, 9, 3), np.uint8)
LABELS = np.arange(11) % 3


@pytest.fixture(scope="module")
def model() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()


@pytest.fixture(scope="module")
def expected(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("expected") / "a.zarr"
    return np.asarray(ag.extract(model, IMAGES, "0", path, reduce="mean", batch_size=4)["0"]["mean"])


class Items(torch.utils.data.Dataset):  # type: ignore[misc]
    """As torchvision's data sets: (image, label)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        if self.kind == "pillow":
            return Image.fromarray(IMAGES[index]), int(LABELS[index])
        return torch.from_numpy(IMAGES[index]).permute(2, 0, 1).float() / 255, torch.tensor(LABELS[index])


class Rows:
    """An object with __iter__ that gives dicts."""

    def __iter__(self) -> Iterator[Any]:
        for index, image in enumerate(IMAGES):
            yield {"image": image, "label": np.int64(LABELS[index]), "__key__": f"k{index}"}


def files(folder: Path) -> Path:
    for index, image in enumerate(IMAGES):
        write_png(folder / "abc"[LABELS[index]] / f"{index:02}.png", image)
    return folder


def tars(folder: Path) -> str:
    """As webdataset writes them: an image and a label of one base name."""
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(11), 2)):
        with tarfile.open(folder / f"shard-{number:03}.tar", "w") as tar:
            for index in part:
                path = folder / "photo.png"
                write_png(path, IMAGES[index])
                for suffix, data in (("png", path.read_bytes()), ("cls", str(LABELS[index]).encode()), ("json", b"{}")):
                    member = tarfile.TarInfo(f"sample{index:02}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                path.unlink()
    return str(folder / "shard-{000..001}.tar")


def mapped(folder: Path) -> Any:
    folder.mkdir()
    np.save(folder / "images.npy", IMAGES)
    return np.load(folder / "images.npy", mmap_mode="r")


LOADER = torch.utils.data.DataLoader
GIVEN: dict[str, Any] = {
    "floats": lambda folder: IMAGES / np.float32(255),
    "labelled": lambda folder: (IMAGES, LABELS),
    "list": lambda folder: list(IMAGES),
    "memory map": mapped,
    "npy": lambda folder: (mapped(folder), folder / "images.npy")[1],
    "tensors": lambda folder: torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255,
    "pillow items": lambda folder: Items("pillow"),
    "tensor items": lambda folder: Items("tensor"),
    "loader": lambda folder: LOADER(Items("tensor"), batch_size=3),
    "loader without batches": lambda folder: LOADER(Items("tensor"), batch_size=None),
    "dicts": lambda folder: Rows(),
    "tars": tars,
    "zarr": lambda folder: zarr_array(folder),
}
LABELLED = ("labelled", "pillow items", "tensor items", "loader", "loader without batches", "dicts", "tars")


def zarr_array(folder: Path) -> Any:
    import zarr

    return zarr.create_array(folder / "given.zarr", data=IMAGES)


@pytest.mark.parametrize("kind", GIVEN)
def test_every_form_gives_the_same_rows(kind: str, model: Any, expected: Any, tmp_path: Path) -> None:
    given = GIVEN[kind](tmp_path / "data")
    store = ag.extract(model, given, "0", tmp_path / "a.zarr", reduce="mean", batch_size=4, shard=8)
    # Divided by 255 in another order: a rounding of each pixel, and of sums of 27 products and of 49 positions.
    np.testing.assert_allclose(store["0"]["mean"], expected, rtol=1e-5, atol=1e-6)
    if kind in LABELLED:
        assert store.labels.tolist() == LABELS.tolist()
    else:
        assert store.labels is None
    assert store.samples[1] == {"dicts": "k1", "tars": "shard-000/sample01"}.get(kind, "1")
    # The same again goes on, which here has nothing to do.
    again = ag.extract(model, given, "0", tmp_path / "a.zarr", reduce="mean", batch_size=4, shard=8)
    assert again.complete


def test_folders(model: Any, expected: Any, tmp_path: Path) -> None:
    folder = files(tmp_path / "photos")
    order = np.argsort(LABELS, kind="stable")
    store = ag.extract(model, folder, "0", tmp_path / "a.zarr", reduce="mean", batch_size=4)
    np.testing.assert_allclose(store["0"]["mean"], expected[order], rtol=1e-5, atol=1e-6)
    images = ag.data.ImageFolder(folder, size=(9, 9))
    store = ag.extract(model, images, "0", tmp_path / "b.zarr", reduce="mean", batch_size=4)
    np.testing.assert_allclose(store["0"]["mean"], expected[order], rtol=1e-5, atol=1e-6)
    assert store.labels.tolist() == sorted(LABELS.tolist())
    listed = [folder / name for name in images.files[:3]]
    assert ag.extract(model, listed, "0", tmp_path / "c.zarr", reduce="mean").done == 3


def test_images_of_many_sizes_are_resized(model: Any, tmp_path: Path) -> None:
    images = [IMAGES[0], IMAGES[1, :5], np.repeat(IMAGES[2], 3, 0), IMAGES[3, :, :, 0]]
    store = ag.extract(model, images[:3], "0", tmp_path / "a.zarr")
    assert store["0"]["values"].shape == (3, 4, 7, 7)
    # One that has another number of channels is listed, and does not end the run.
    store = ag.extract(model, images, "0", tmp_path / "b.zarr")
    assert "channels last" in store.unreadable["3"]


def test_a_stream_goes_on_where_it_was(model: Any, tmp_path: Path) -> None:
    from tests.extract.killing import content
    from tests.extract.test_extract import Stopped, stop_after

    arguments: dict[str, Any] = {"reduce": ["mean", "histogram"], "batch_size": 2, "shard": 4}
    ag.extract(model, Rows(), "0", tmp_path / "whole.zarr", **arguments)
    with pytest.raises(Stopped):
        ag.extract(model, Rows(), "0", tmp_path / "a.zarr", progress=stop_after(9), **arguments)
    assert ag.taps.open(tmp_path / "a.zarr").done == 8
    ag.extract(model, Rows(), "0", tmp_path / "a.zarr", **arguments)
    assert content(tmp_path / "a.zarr") == content(tmp_path / "whole.zarr")


def test_hugging_face(model: Any, expected: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    rows = {"photo": [Image.fromarray(x) for x in IMAGES], "label": LABELS.tolist()}
    features = datasets.Features({"photo": datasets.Image(), "label": datasets.Value("int64")})
    given = datasets.Dataset.from_dict(rows, features=features)
    store = ag.extract(model, given, "0", tmp_path / "a.zarr", field="photo", reduce="mean", batch_size=4)
    np.testing.assert_allclose(store["0"]["mean"], expected, rtol=1e-5, atol=1e-6)
    assert store.labels.tolist() == LABELS.tolist()
    with pytest.raises(ag.InvalidInput, match="samples are dicts of photo, label: name the image's entry"):
        ag.extract(model, given, "0", tmp_path / "b.zarr")


def test_lists_of_bytes_are_images(model: Any, tmp_path: Path) -> None:
    """As Hugging Face data sets give images that were not declared as such."""
    images = np.random.default_rng(3).integers(0, 256, (4, 8, 8, 3), np.uint8)
    given, expected = (
        ag.extract(model, x, "0", tmp_path / f"{i}.zarr", reduce="mean")
        for i, x in enumerate(([{"image": x.tolist()} for x in images], images))
    )
    np.testing.assert_array_equal(given["0"]["mean"], expected["0"]["mean"])
    with pytest.raises(ag.InvalidInput, match=r"images are uint8, or floating point in \[0, 1\], not int64"):
        ag.extract(model, [{"image": (x.astype(int) + 1).tolist()} for x in images], "0", tmp_path / "b.zarr")


def test_webdataset(model: Any, expected: Any, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    given = webdataset.WebDataset(tars(tmp_path / "data"), shardshuffle=False).decode("rgb8").to_tuple("png", "cls")
    store = ag.extract(model, given, "0", tmp_path / "a.zarr", reduce="mean", batch_size=4)
    np.testing.assert_allclose(store["0"]["mean"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_data_sets_and_models_of_keras(engine: str) -> None:
    run_on_engine(
        engine, Path(__file__).with_name("keras_checks.py"), needs=("keras", "zarr"),
        variables={"AGNOSTIC_TEST_ENGINE": engine},
    )  # fmt: skip


# What is refused -----------------------------------------------------------------------------------------------------
class Random:
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return np.random.default_rng().random((4, 4, 3))


def test_what_changes_from_run_to_run_is_refused() -> None:
    with pytest.raises(ag.InvalidInput, match="gives another sample each time"):
        samples_of(Random())
    with pytest.raises(ag.InvalidInput, match="DataLoader shuffles its samples"):
        samples_of(LOADER(Items("tensor"), shuffle=True))


def test_prepared_samples_have_one_shape(model: Any, tmp_path: Path) -> None:
    rows = [torch.zeros(3, 8, 8), torch.zeros(3, 9, 8)]
    with pytest.raises(ag.InvalidInput, match=r"sample '1' has the shape \(3, 9, 8\) and the first one \(3, 8, 8\)"):
        ag.extract(model, rows, "0", tmp_path / "a.zarr")
    with pytest.raises(ag.InvalidInput, match="uint8 arrays of a framework"):
        ag.extract(model, [torch.zeros(3, 8, 8, dtype=torch.uint8)], "0", tmp_path / "a.zarr")


def test_one_file_that_cannot_be_read(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ag.InvalidInput, match=r"^cannot read '.*none': there is no such file"):
        ag.extract(model, tmp_path / "none", "0", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_damaged_tars(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"x" * 600)
    with pytest.raises(ag.InvalidInput, match=r"a\.tar': it is no whole \.tar file"):
        samples_of(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w"):
        pass
    with pytest.raises(ag.InvalidInput, match="has no photos"):
        samples_of(tmp_path / "b.tar")
    with pytest.raises(ag.InvalidInput, match="there is no such file"):
        samples_of(tmp_path / "shard-{000..002}.tar")
