"""agnostic.extract: what is in a store is what the layers return, whatever the batches, parts and layouts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.cli import main
from agnostic.taps import reductions
from tests.engines import run_apart
from tests.extract.killing import content

torch = pytest.importorskip("torch")
zarr = pytest.importorskip("zarr")
nn = torch.nn
IMAGES = np.random.default_rng(0).integers(0, 256, (23, 12, 12, 3), np.uint8)


class Network(nn.Module):
    """A convolution, an activation that runs twice, tokens, a head, and layers that cannot be stored."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.pair, self.never = nn.Conv2d(3, 4, 3), nn.ReLU(), Pair(), nn.ReLU()
        self.tokens, self.head = nn.LayerNorm(4), nn.Linear(4, 5)

    def forward(self, x: Any) -> Any:
        x = self.act(self.conv(x))
        x = self.tokens(x.flatten(2).transpose(1, 2))
        return self.head(self.act(self.pair(x)[0].mean(1)))


class Pair(nn.Module):
    def forward(self, x: Any) -> Any:
        return x, None


@pytest.fixture(scope="module")
def model() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().eval()


@pytest.fixture(scope="module")
def outputs(model: Any) -> Any:
    return ag.capture(model, ag.prepare(model, IMAGES), ["conv", "act", "tokens", "head"]).numpy()


# Rows of another batch size may differ in rounding: 27 and 4 products, sums of 100 positions; see CONTRIBUTING.md.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def test_what_is_stored_is_what_layers_return(model: Any, outputs: Any, tmp_path: Path) -> None:
    reduce = ["values", "mean", "max", "histogram", "covariance"]
    store = ag.extract(
        model,
        IMAGES,
        ["conv", "act", "tokens", "head"],
        tmp_path / "a.zarr",
        reduce=reduce,
        top=3,
        batch_size=4,
        shard=8,
    )
    assert list(store) == ["conv", "act", "act#1", "tokens", "head"]
    assert store.complete
    assert store.samples.tolist() == [str(i) for i in range(23)]
    conv = outputs["conv"]
    np.testing.assert_allclose(store["conv"]["values"], conv, **CLOSE)
    np.testing.assert_allclose(store["act#1"]["values"], outputs.calls("act")[1], **CLOSE)
    np.testing.assert_allclose(store["conv"]["mean"], conv.mean((2, 3)), **CLOSE)
    np.testing.assert_allclose(store["tokens"]["mean"], outputs["tokens"].mean(1), **CLOSE)
    np.testing.assert_allclose(store["head"]["mean"], outputs["head"], **CLOSE)
    np.testing.assert_array_equal(store["conv"]["max"], np.asarray(store["conv"]["values"]).max((2, 3)))
    places = np.asarray(store["conv"]["max_place"])
    found = np.asarray(store["conv"]["values"])[np.arange(23)[:, None], np.arange(4), places[..., 0], places[..., 1]]
    np.testing.assert_array_equal(found, store["conv"]["max"])
    flat = np.moveaxis(np.asarray(store["conv"]["values"]), 1, -1).reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(store["conv"]["covariance"], np.cov(flat.T, bias=True), rtol=1e-9)
    np.testing.assert_allclose(store["conv"]["covariance_mean"], flat.mean(0), rtol=1e-12)
    # Of the highest maxima, by a full sort.
    maxima = np.asarray(store["conv"]["max"])
    order = np.argsort(-maxima, axis=0, kind="stable")[:3]
    np.testing.assert_array_equal(store["conv"]["top_sample"], order)
    np.testing.assert_array_equal(store["conv"]["top_value"], np.take_along_axis(maxima, order, 0))
    np.testing.assert_array_equal(store["conv"]["top_place"], np.take_along_axis(places, order[..., None], 0))
    histogram = store["conv"]["histogram"]
    borders = reductions.edges()
    for channel in range(4):
        np.testing.assert_array_equal(histogram[channel], np.histogram(flat[:, channel], borders)[0])


def test_a_result_does_not_depend_on_threads_or_parts(model: Any, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"reduce": ["mean", "covariance", "histogram"], "batch_size": 4}
    one = ag.extract(model, IMAGES, ["conv"], tmp_path / "1.zarr", shard=8, workers=1, **arguments)
    ag.extract(model, IMAGES, ["conv"], tmp_path / "3.zarr", shard=8, workers=3, **arguments)
    other = ag.extract(model, IMAGES, ["conv"], tmp_path / "4.zarr", shard=4, workers=3, **arguments)
    assert content(tmp_path / "1.zarr") == content(tmp_path / "3.zarr")
    np.testing.assert_array_equal(one["conv"]["mean"], other["conv"]["mean"])
    np.testing.assert_array_equal(one["conv"]["histogram"], other["conv"]["histogram"])
    np.testing.assert_array_equal(one["conv"]["top_sample"], other["conv"]["top_sample"])


def test_it_reads_as_plain_zarr_and_xarray(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    ag.extract(model, (IMAGES, np.arange(23)), ["conv", "tokens"], path, reduce=["values", "mean"], top=0)
    group = zarr.open_group(path, mode="r")
    array = group["layers/conv/values"]
    assert array.metadata.dimension_names == ("sample", "channel", "height", "width")
    assert array.shards is not None
    assert array.attrs["units"] == "1"
    assert group["label"][:].tolist() == list(range(23))
    header = group.attrs["agnostic"]
    assert header["versions"]["torch"] == torch.__version__
    assert header["model"]["class"] == "Network"
    assert set(header["fingerprint"]) == {"model", "dataset", "preprocessing", "layers", "versions"}
    # Rows are a data set for a loader.
    loader = torch.utils.data.DataLoader(ag.taps.open(path)["conv"]["mean"], batch_size=10)
    np.testing.assert_array_equal(np.concatenate(list(loader)), group["layers/conv/mean"][:])
    xarray = pytest.importorskip("xarray")
    data = xarray.open_zarr(path, group="layers/tokens", consolidated=False)
    assert dict(data.sizes) == {"sample": 23, "position": 100, "channel": 4}
    np.testing.assert_array_equal(data["mean"].values, group["layers/tokens/mean"][:])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_are_rounded_to_the_nearest(model: Any, tmp_path: Path, dtype: str) -> None:
    whole = ag.extract(model, IMAGES, "conv", tmp_path / "32.zarr", top=0)
    rounded = ag.extract(model, IMAGES, "conv", tmp_path / "16.zarr", dtype=dtype, top=0)
    expected = torch.from_numpy(np.asarray(whole["conv"]["values"])).to(getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(np.asarray(rounded["conv"]["values"]).astype(np.float32), expected)

    def size(name: str) -> int:
        return sum(x.stat().st_size for x in (tmp_path / name / "layers").rglob("*") if x.is_file())

    assert size("16.zarr") < 0.7 * size("32.zarr")


def test_globs_leave_out_what_cannot_be_stored(model: Any, tmp_path: Path) -> None:
    store = ag.extract(model, IMAGES, "*", tmp_path / "a.zarr", reduce="mean")
    assert "never" not in store
    assert store.header.left_out == {"pair": "it returns tuple, and an array is expected"}
    with pytest.raises(ag.InvalidInput, match="layer 'pair' cannot be stored: it returns tuple"):
        ag.extract(model, IMAGES, "pair", tmp_path / "b.zarr")
    with pytest.raises(ag.InvalidInput, match=r"layer 'never' .* did not run"):
        ag.extract(model, IMAGES, "never", tmp_path / "b.zarr")
    with pytest.raises(ag.UnknownName, match="did you mean 'conv'"):
        ag.extract(model, IMAGES, "cnov", tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()


def test_a_glob_chooses_the_numbered_layers_inside_of_what_it_matches(tmp_path: Path) -> None:
    block = nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1)})
    block.forward = lambda x: block["conv"](x)  # type: ignore[method-assign,assignment]
    network = nn.Sequential()
    network.add_module("blocks", nn.Sequential(nn.Sequential(block, nn.ReLU()), nn.ReLU()))
    store = ag.extract(network, IMAGES, "blocks.*", tmp_path / "a.zarr", reduce="mean")
    assert list(store) == ["blocks.0", "blocks.0.0", "blocks.0.1", "blocks.1"]
    assert ag.top(tmp_path / "a.zarr", "blocks.0.1", 2, count=3).names == ag.top(store, "blocks.0", 2, count=3).names
    with pytest.raises(ag.UnknownName, match=r"layer 'blocks.0.3' is not in the store .*did you mean 'blocks.0"):
        ag.top(store, "blocks.0.3", 2)


def test_an_axis_that_is_as_long_as_the_batch_by_chance(tmp_path: Path) -> None:
    class Table(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.stack([x.mean(0).flatten()[:23]] * 5, 1)  # (23, 5), whatever the batch

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.table = nn.Conv2d(3, 3, 1), Table()

        def forward(self, x: Any) -> Any:
            return self.conv(x) + self.table(x).sum()

    store = ag.extract(Whole(), IMAGES, "*", tmp_path / "a.zarr")
    assert list(store) == ["conv"]
    assert store.header.left_out == {"table": "its output (23, 5) has no axis for the 23 samples of the batch"}


def test_layers_may_compute_in_bfloat16(model: Any, outputs: Any, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"reduce": ["values", "mean"], "batch_size": 4, "shard": 8}
    store = ag.extract(model, IMAGES, ["conv", "tokens"], tmp_path / "a.zarr", compute="bfloat16", **arguments)
    assert store.header.layers["conv"].axes == "NCHW"
    assert {x.dtype for x in model.parameters()} == {torch.float32}
    error = np.abs(np.asarray(store["conv"]["values"]) - outputs["conv"]).max() / np.abs(outputs["conv"]).max()
    # 27 products of numbers that are rounded to 8 bits, a half of the last place each, summed in float32, then rounded.
    assert 1e-5 < error < 2 * 2.0**-8
    with pytest.raises(ag.InvalidInput, match="was begun with compute='bfloat16', not None"):
        ag.extract(model, IMAGES, ["conv", "tokens"], tmp_path / "a.zarr", **arguments)
    with pytest.raises(ag.UnknownName, match="compute is one of bfloat16"):
        ag.extract(model, IMAGES, "conv", tmp_path / "b.zarr", compute="int8")


def test_a_backend_that_knows_one_type_only(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import agnostic_torch.taps

    own = agnostic_torch.taps.loop
    monkeypatch.setattr(agnostic_torch.taps, "loop", lambda model, names: own(model, names))
    assert ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr").complete
    with pytest.raises(ag.InvalidInput, match="runs a model in its own type only: leave out compute='bfloat16'"):
        ag.extract(model, IMAGES, "conv", tmp_path / "b.zarr", compute="bfloat16")


@pytest.mark.parametrize(
    ("flat", "is_last"),
    [
        (lambda x: x.flatten(1), True),
        (lambda x: x.view(len(x), -1), False),
        (lambda x: x.as_strided((len(x), x[0].numel()), (x[0].numel(), 1)), False),
    ],
)
def test_images_have_their_channels_last_in_memory_where_nothing_depends_on_it(
    flat: Any, is_last: bool, tmp_path: Path
) -> None:
    layouts = []

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 2, 3), nn.Linear(200, 4)

        def forward(self, x: Any) -> Any:
            layouts.append(x.is_contiguous(memory_format=torch.channels_last))
            return self.head(flat(self.conv(x)))

    network = Flat().eval()
    store = ag.extract(network, IMAGES, "head", tmp_path / "a.zarr", batch_size=4)
    assert layouts[-1] is is_last
    expected = ag.capture(network, ag.prepare(network, IMAGES), "head").numpy()["head"]
    np.testing.assert_allclose(store["head"]["values"], expected, **CLOSE)


def test_rows_are_read_by_slices(model: Any, tmp_path: Path) -> None:
    rows = ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", reduce="mean", batch_size=4, shard=8)["conv"]["mean"]
    whole = np.asarray(rows)
    assert rows.shape == whole.shape == (23, 4)
    np.testing.assert_array_equal(rows[-1], whole[-1])
    np.testing.assert_array_equal(rows[5:9, 1], whole[5:9, 1])
    np.testing.assert_array_equal(rows[[3, 20, 4]], whole[[3, 20, 4]])
    np.testing.assert_array_equal(rows[whole[:, 0] > 0], whole[whole[:, 0] > 0])
    with pytest.raises(IndexError):
        rows[23]


def test_places_are_the_same_wherever_an_array_is() -> None:
    from agnostic.reference.ops import NumpyOps

    ops, rng = NumpyOps(), np.random.default_rng(0)
    x = rng.integers(0, 3, (4, 3, 5, 2)).astype(np.float32)  # with many equal maxima
    x[1, 2, 3, 1] = x[1, 2, 4, 0] = np.nan
    chosen = np.array([1, 3, 1]), np.array([2, 0, 1])
    for axes in ("NCHW", "NHWC", "CNHW"):
        order = [axes.index(letter) for letter in "NCHW"]
        given = np.transpose(x, np.argsort(order))
        here = reductions.places(given, axes)
        flat = x.reshape(4, 3, -1)
        first = np.where(np.isnan(flat).any(-1), np.isnan(flat).argmax(-1), flat.argmax(-1))
        np.testing.assert_array_equal(here, np.stack(np.unravel_index(first, (5, 2)), -1))
        on_device = reductions.flat_places(ops, given, axes, reductions.place_numbers(ops, given, axes))
        np.testing.assert_array_equal(reductions.unravelled(on_device.reshape(4, 3), (5, 2)), here)
        np.testing.assert_array_equal(reductions.places(given, axes, chosen), here[chosen])


class Broken(nn.Module):
    """Numbers that are not finite, beyond float16, and constant."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = nn.Identity()

    def forward(self, x: Any) -> Any:
        constant, large = torch.ones_like(x[:, :1]), 1e5 * torch.ones_like(x[:, :1])
        x = torch.cat([x[:, :1], constant, large], 1)
        x[1, 0, 0, 0] = float("nan")
        x[2, 0, 0, 0] = float("inf")
        return self.odd(x)


def test_numbers_that_are_not_finite_or_constant(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((6, 1, 4, 4), np.float32)
    arguments: dict[str, Any] = {"prepared": True, "layers": "odd", "batch_size": 6}
    reduce = ["mean", "max", "histogram"]
    store = ag.extract(Broken(), rows, store=tmp_path / "a.zarr", reduce=reduce, top=4, **arguments)["odd"]
    assert np.isnan(store["mean"][1, 0])
    assert np.isnan(store["max"][1, 0])
    assert store["max_place"][1, 0].tolist() == [0, 0]
    assert store["top_sample"][0, 0] == 2  # infinity is the highest, NaN is none
    assert 1 not in store["top_sample"][:, 0]
    # Of equals the first.
    assert store["top_sample"][:, 1].tolist() == [0, 1, 2, 3]
    # NaN is in no bin; what is constant is in one.
    assert store["histogram"].sum(1).tolist() == [95, 96, 96]
    assert (store["histogram"][1:] > 0).sum(1).tolist() == [1, 1]
    with pytest.raises(ag.InvalidInput, match=r"layer 'odd' returned 1e\+05, and float16 ends at 65504: store it with"):
        ag.extract(Broken(), rows, store=tmp_path / "b.zarr", reduce="mean", dtype="float16", **arguments)


# Stops ---------------------------------------------------------------------------------------------------------------
class Stopped(Exception):
    """In the middle of a run."""


def stop_after(count: int) -> Any:
    def progress(steps: int, total: int | None) -> None:
        nonlocal count
        count -= steps
        if count <= 0:
            raise Stopped

    return progress


def test_what_was_written_before_a_stop_is_readable_and_goes_on(model: Any, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"reduce": ["mean", "histogram"], "batch_size": 4, "shard": 8}
    ag.extract(model, IMAGES, "conv", tmp_path / "whole.zarr", **arguments)
    with pytest.raises(Stopped):
        ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", progress=stop_after(20), **arguments)
    store = ag.taps.open(tmp_path / "a.zarr")
    assert not store.complete
    assert store.done == 16 == len(store.samples) == len(store["conv"]["mean"])
    assert store["conv"]["histogram"].sum() == 16 * 4 * 100
    assert "16 samples so far, of 23" in repr(store)
    seen: list[int] = []
    ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", progress=lambda n, total: seen.append(n), **arguments)
    assert seen == [16, 4, 3]
    assert content(tmp_path / "a.zarr") == content(tmp_path / "whole.zarr")
    assert ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", **arguments).complete


def test_killed_runs_go_on_with_the_same_bytes(tmp_path: Path) -> None:
    from tests.extract.killing import plugin_found

    paths = os.pathsep.join(plugin_found(tmp_path))
    run_apart(Path(__file__).with_name("killing_checks.py"), variables={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"})


def test_a_url_is_written_with_the_same_bytes(model: Any, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    arguments: dict[str, Any] = {"reduce": ["mean", "histogram"], "batch_size": 4, "shard": 8}
    with pytest.raises(Stopped):
        ag.extract(model, IMAGES, "conv", "memory://bucket/a.zarr", progress=stop_after(12), **arguments)
    assert ag.taps.open("memory://bucket/a.zarr").done == 8
    ag.extract(model, IMAGES, "conv", "memory://bucket/a.zarr", **arguments)
    ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", **arguments)
    system = fsspec.filesystem("memory")
    found = {name.partition("a.zarr/")[2]: system.cat(name) for name in system.find("/bucket/a.zarr")}
    assert found == content(tmp_path / "a.zarr")
    with pytest.raises(ag.InvalidInput, match="of another data set"):
        ag.extract(model, IMAGES[1:], "conv", "memory://bucket/a.zarr", **arguments)
    with pytest.raises(ag.InvalidInput, match="is no store of activations"):
        ag.taps.open("memory://bucket/absent.zarr")


def test_an_object_store_has_the_same_bytes(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    from tests.extract.objects import serving

    arguments: dict[str, Any] = {"reduce": ["mean", "max"], "batch_size": 4, "shard": 8}
    where = "s3://bucket/runs/a.zarr"
    ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", **arguments)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    with serving() as (address, objects):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(ag.InvalidInput, match="is no store of activations"):
            ag.taps.open(where)
        with pytest.raises(Stopped):
            ag.extract(model, IMAGES, "conv", where, progress=stop_after(12), **arguments)
        assert ag.taps.open(where).done == 8
        store = ag.extract(model, IMAGES, "conv", where, **arguments)
        found = {name.removeprefix("bucket/runs/a.zarr/"): data for name, data in objects.items()}
        assert found == content(tmp_path / "a.zarr")
        np.testing.assert_array_equal(
            store["conv"]["mean"][3:20], ag.taps.open(tmp_path / "a.zarr")["conv"]["mean"][3:20]
        )
        assert (
            ag.top(where, "conv", 1, count=3).positions.tolist() == ag.top(store, "conv", 1, count=3).positions.tolist()
        )
        assert ag.similar(where, tmp_path / "a.zarr", batch=20).values[0, 0] == pytest.approx(1, abs=1e-5)
        with pytest.raises(ag.InvalidInput, match="of another data set"):
            ag.extract(model, IMAGES[1:], "conv", where, **arguments)
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_address_that_cannot_be_opened_is_a_sentence(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for act in (lambda url: ag.taps.open(url), lambda url: ag.extract(model, IMAGES, "conv", url)):
        with pytest.raises(ag.InvalidInput, match=r"'xyz://b/a\.zarr' cannot be opened: Protocol not known: xyz"):
            act("xyz://b/a.zarr")
        with pytest.raises(ag.MissingDependency, match=r"'gs://b/a\.zarr' cannot be opened: Please install gcsfs"):
            act("gs://b/a.zarr")


def test_another_model_preprocessing_or_data_set_is_refused(model: Any, tmp_path: Path) -> None:
    import copy

    path = tmp_path / "a.zarr"
    ag.extract(model, IMAGES, "conv", path, reduce="mean")
    before = content(path)
    other = copy.deepcopy(model)
    other.head.bias.data += 1
    for wrong, message in (
        (lambda: ag.extract(other, IMAGES, "conv", path, reduce="mean"), "of another model, or other weights"),
        (lambda: ag.extract(model, IMAGES[::-1], "conv", path, reduce="mean"), "of another data set"),
        (lambda: ag.extract(model, IMAGES, "conv", path, reduce="mean", size=9), "of another preprocessing"),
        (lambda: ag.extract(model, IMAGES, "act", path, reduce="mean"), "of other layers"),
        (lambda: ag.extract(model, IMAGES, "conv", path, reduce="max"), r"reduce=\['mean'\], not \['max'\]"),
        (lambda: ag.extract(model, IMAGES, "conv", path, reduce="mean", batch_size=2), "batch=23, not 2"),
    ):
        with pytest.raises(ag.InvalidInput, match=message):
            wrong()
    assert content(path) == before


def test_a_second_writer_is_refused(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"

    def second(steps: int, total: int | None) -> None:
        with pytest.raises(ag.InvalidInput, match="another process writes into the store"):
            ag.extract(model, IMAGES, "conv", path)

    assert ag.extract(model, IMAGES, "conv", path, progress=second).complete


# Bad input -----------------------------------------------------------------------------------------------------------
def test_a_full_disk_is_a_sentence_and_the_run_goes_on(model: Any, tmp_path: Path) -> None:
    from tests.test_full_disk import room

    arguments: dict[str, Any] = {"batch_size": 4, "shard": 4, "top": 0}
    ag.extract(model, IMAGES, ["conv", "act"], tmp_path / "whole.zarr", **arguments)
    # The samples after the first eight answer with noise, which takes more room than zeros.
    flat = np.where(np.arange(23)[:, None, None, None] < 8, 0, IMAGES).astype(np.uint8)
    ag.extract(model, flat, ["conv", "act"], tmp_path / "flat.zarr", **arguments)
    with room(4000), pytest.raises(ag.InvalidInput, match=r"file too large; the first 8 of 23 samples are kept: make"):
        ag.extract(model, flat, ["conv", "act"], tmp_path / "a.zarr", **arguments)
    assert ag.taps.open(tmp_path / "a.zarr").done == 8
    assert not list(tmp_path.rglob("*.partial"))
    ag.extract(model, flat, ["conv", "act"], tmp_path / "a.zarr", **arguments)
    assert content(tmp_path / "a.zarr") == content(tmp_path / "flat.zarr")


class Growing(nn.Module):
    """Returns more columns with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return x[..., : 4 + self.calls // 12]


def test_a_layer_whose_shape_changes_is_a_sentence(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), Growing())
    with pytest.raises(ag.InvalidInput, match=r"layer '1' returned .* for samples .* has one shape, so leave it out"):
        ag.extract(network, IMAGES, "1", tmp_path / "a.zarr", batch_size=2, shard=2)
    store = ag.taps.open(tmp_path / "a.zarr")
    assert 0 < store.done == len(store["1"]["values"]) < 23


def test_a_folder_of_photos_with_broken_ones(model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agnostic.files import write_png

    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(ag.InvalidInput, match="has no photos"):
        ag.extract(model, photos, "conv", tmp_path / "a.zarr")
    for i in range(5):
        write_png(photos / "cat" / f"{i}.png", IMAGES[i, : 8 + i])
    (photos / "cat" / "2.png").write_bytes(b"GIF89a")
    (photos / "dog.jpg").write_bytes(b"")
    store = ag.extract(model, photos, "conv", tmp_path / "a.zarr", reduce=["mean", "covariance"], size=10, batch_size=2)
    assert store.samples.tolist() == ["dog.jpg", *(f"cat/{i}.png" for i in range(5))]
    assert list(store.unreadable) == ["dog.jpg", "cat/2.png"]
    assert "cat/2.png" in store.unreadable["cat/2.png"]
    assert np.isnan(store["conv"]["mean"]).all(1).tolist() == (~store.readable).tolist()
    assert not set(store["conv"]["top_sample"][:4].ravel().tolist()) & {0, 3}
    assert np.isfinite(store["conv"]["covariance"]).all()
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ag.InvalidInput, match="none of 6 samples can be read: cannot read"):
        ag.extract(model, photos, "conv", tmp_path / "b.zarr", reduce="mean")


def test_what_is_no_store_is_a_sentence(model: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "note.txt").write_text("mine")
    with pytest.raises(ag.InvalidInput, match="is no store of activations, and not empty: choose another name"):
        ag.extract(model, IMAGES, "conv", tmp_path / "folder")
    assert (tmp_path / "folder" / "note.txt").read_text() == "mine"
    with pytest.raises(ag.InvalidInput, match="is no store of activations"):
        ag.taps.open(tmp_path / "folder")
    with pytest.raises(ag.InvalidInput, match="there is no such file"):
        ag.taps.open(tmp_path / "absent.zarr")
    zarr.create_group(tmp_path / "other.zarr", attributes={"agnostic": {"format": "x"}})
    with pytest.raises(ag.InvalidInput, match="damaged, or no store of activations"):
        ag.taps.open(tmp_path / "other.zarr")
    with pytest.raises(ag.InvalidInput, match="damaged, or no store of activations"):
        ag.extract(model, IMAGES, "conv", tmp_path / "other.zarr")


def test_damage_is_told(model: Any, tmp_path: Path) -> None:
    store = ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr", batch_size=4, shard=8)
    shard = tmp_path / "a.zarr" / "layers" / "conv" / "values" / "c" / "1" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    assert store["conv"]["values"][:8].shape == (8, 4, 10, 10)
    with pytest.raises(ag.InvalidInput, match="is damaged: rows of 'layers/conv/values' cannot be read"):
        store["conv"]["values"][8:16]


def test_damaged_stores_of_every_kind(model: Any, tmp_path: Path) -> None:
    import shutil

    arguments: dict[str, Any] = {"reduce": "mean", "batch_size": 4, "shard": 8}
    whole, partial, path = tmp_path / "whole.zarr", tmp_path / "partial.zarr", tmp_path / "a.zarr"
    ag.extract(model, IMAGES, "conv", whole, **arguments)
    with pytest.raises(Stopped):
        ag.extract(model, IMAGES, "conv", partial, progress=stop_after(12), **arguments)

    def damaged(source: Path, file: str, before: str | None, after: str = "") -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source, path)
        if before is None:
            shutil.rmtree(path / file)
        else:
            text = (path / file).read_text()
            assert before in text
            (path / file).write_text(text.replace(before, after))

    array = "layers/conv/mean"
    cases = [
        (whole, "zarr.json", '"samples": 23', '"samples": 99'),
        (whole, "zarr.json", '"samples": 23', '"samples": -1'),
        (whole, "zarr.json", '"shard": 8', '"shard": 0'),
        (whole, "zarr.json", '"axes": "NCHW"', '"axes": "NCHWC"'),
        (whole, "zarr.json", '"size": [', '"size": [1.5,'),
        (whole, "layers/conv/top_value/zarr.json", '"shape": [\n    20,', '"shape": [\n    20, 7,'),
        (whole, f"{array}/zarr.json", "{", ""),
        (whole, "layers/conv", None, ""),
        (whole, "sample", None, ""),
    ]
    for source, *change in cases:
        damaged(source, *change)  # type: ignore[arg-type]
        with pytest.raises(ag.InvalidInput, match="is damaged"):
            ag.similar(path, batch=8)
    for change in ([array, None], [f"{array}/zarr.json", "{", ""]):
        damaged(partial, *change)
        with pytest.raises(ag.InvalidInput, match="is damaged: 'layers/conv/mean' cannot be read"):
            ag.extract(model, IMAGES, "conv", path, **arguments)
    for name in (f"{array}/c/1/0", "sample/c/2", "problem/c/0", "layers/conv/top_value/c/0/0"):
        damaged(whole, f"{array}/zarr.json", "{", "{")
        (path / name).unlink()
        store, (_, _, rest) = ag.taps.open(path), name.partition("conv/")
        with pytest.raises(ag.InvalidInput, match=r"is damaged: the file 'c/.*' of '.*' is missing; copy the store"):
            np.asarray(store["conv"][rest.partition("/")[0]] if rest else [store.samples, store.unreadable])
    assert np.isfinite(np.asarray(ag.taps.open(whole)["conv"]["mean"])).all()


def test_a_part_of_photos_that_cannot_be_read_is_no_loss(model: Any, tmp_path: Path) -> None:
    from agnostic.files import write_png

    for i in range(8):
        write_png(tmp_path / "photos" / f"{i}.png", IMAGES[i])
    for i in (2, 3):
        (tmp_path / "photos" / f"{i}.png").write_bytes(b"")
    for layers, dtype in (("conv", "float32"), ("head", "float16")):
        path = tmp_path / f"{layers}.zarr"
        store = ag.extract(
            model, tmp_path / "photos", layers, path, dtype=dtype, reduce=["values", "max"], batch_size=2, shard=2
        )
        assert np.isnan(np.asarray(store[layers]["values"][2:4])).all()
        assert len(store.unreadable) == 2


def test_names_that_are_no_text(model: Any, tmp_path: Path) -> None:
    from agnostic.files import write_png

    photos = tmp_path / "my photos"
    for name, image in zip(["new\nline.png", "☃ b.png", "c.png"], IMAGES, strict=False):
        write_png(photos / name, image)
    os.rename(photos / "c.png", os.fsencode(photos) + b"/b\xff.png")
    (photos / "d.png").write_bytes(b"")
    store = ag.extract(model, photos, "conv", tmp_path / "a b.zarr", reduce="mean", size=8)
    assert set(store.samples.tolist()) == {"new\nline.png", "☃ b.png", "b\\xff.png", "d.png"}
    assert list(store.unreadable) == ["d.png"]
    ag.top(store, "conv", 1).save(tmp_path / "top.png")


@pytest.mark.parametrize("index", [1, -1])
def test_an_output_without_numbers_cannot_be_stored(index: int, tmp_path: Path) -> None:
    class Empty(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.narrow(index, 0, 0)

    network = nn.Sequential(nn.Conv2d(3, 2, 3), Empty())
    store = ag.extract(network, IMAGES, "*", tmp_path / "a.zarr", reduce=["max", "covariance"])
    assert list(store.header.left_out) == ["1"]
    assert "has no numbers" in store.header.left_out["1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduce": "maen"}, "reduce is one of .*did you mean 'mean'"),
        ({"reduce": []}, "not an empty list"),
        ({"dtype": "float64"}, "dtype is one of float32"),
        ({"engine": "spark"}, "engine is one of local, ray"),
        ({"reduce": 3}, "reduce is one of .*, not 3"),
        ({"workers": 0}, "workers must be an integer of 1 or more"),
        ({"workers": "2"}, "workers must be an integer"),
        ({"address": "x"}, "the address 'x' is for the engine 'ray': choose that"),
        ({"store": "a" * 300}, "cannot write .* name too long"),
        ({"batch_size": 4, "shard": 6}, "shard is a multiple of batch_size=4, not 6"),
        ({"dataset": np.zeros((0, 8, 8, 3))}, "the data set is empty"),
        ({"dataset": 3}, "3 is no data set"),
        ({"dataset": {"image": IMAGES, "label": 1}}, "a dict of image, label is no data set"),
        ({"dataset": {1, 2}}, "a sample is one number, 1, and an image"),
        ({"dataset": iter([1])}, "can be read once only"),
        ({"dataset": IMAGES * 2.0}, r"in \[0, 1\]"),
    ],
)
def test_wrong_arguments(model: Any, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ag.AgnosticError, match=message):
        ag.extract(model, **{"dataset": IMAGES, "layers": "conv", "store": tmp_path / "a.zarr", **arguments})
    assert not (tmp_path / "a.zarr").exists()


def test_a_store_needs_zarr(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ag.MissingDependency, match=r"pip install 'agnostic-ml\[scale\]'"):
        ag.extract(model, IMAGES, "conv", tmp_path / "a.zarr")


# The command ---------------------------------------------------------------------------------------------------------
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU())"
    )
    np.save(tmp_path / "images.npy", IMAGES)
    command = [
        "extract",
        f"{file}:make",
        str(tmp_path / "images.npy"),
        "--layer",
        "*",
        "--reduce",
        "mean",
        "--size",
        "8",
    ]
    assert main([*command, "--out", str(tmp_path / "a.zarr"), "--engine", "local"]) == 0
    said = capsys.readouterr().out
    assert "a.zarr: 23 samples, 2 layers" in said
    assert "2 x 6 x 6" in said
    store = ag.taps.open(tmp_path / "a.zarr")
    assert store["0"]["mean"].shape == (23, 2)
    assert main(["extract", "--help"]) == 0
    assert "Example:" in capsys.readouterr().out
    assert main([*command[:2], str(tmp_path / "absent"), *command[3:], "--out", str(tmp_path / "b.zarr")]) == 2
    assert "absent" in capsys.readouterr().err
