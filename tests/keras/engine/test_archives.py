"""Files of Keras from strangers: nothing is called but what computes, and no raw error comes of damage."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers as kl
from keras.src.utils import module_utils

import agnostic as ag
from agnostic.contracts.weights import WEIGHTS
from agnostic.models.attached import attach, card_of
from agnostic.models.cards import ModelCard, Preprocessing


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a nested, compiled one, operators, and a card."""
    inner = keras.Sequential([keras.Input((6, 6, 3)), kl.Flatten(), kl.Dense(2, "tanh", kernel_regularizer="l2")])
    inner.compile("adam", "mse", metrics=["acc"])
    x = keras.Input((4, 4, 3))
    y = keras.ops.pad(kl.Conv2D(3, 1, activation="gelu")(keras.ops.relu(x) * 2), [(0, 0), (1, 1), (1, 1), (0, 0)])
    model = keras.Model(x, kl.Activation(keras.activations.softplus, name="act")(inner(y)))
    model.compile("sgd", "mse")
    attach(model, ModelCard("x", Preprocessing((0.5,) * 3, (0.2,) * 3), (4, 4)))
    path = tmp_path_factory.mktemp("archive") / "a.keras"
    ag.backend_of(model)[WEIGHTS].save(model, path)
    return path


def test_saving_does_not_import_tensorflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keras asks for it at every object that it saves; with PyTorch's triton in the process, the import ends it."""
    if keras.backend.backend() == "tensorflow":
        pytest.skip("it is there")
    asked = []

    def initialize() -> None:
        asked.append("tensorflow")
        raise ImportError

    monkeypatch.setattr(module_utils.tensorflow, "_available", None)
    monkeypatch.setattr(module_utils.tensorflow, "initialize", initialize)
    model = keras.Sequential([keras.Input((2,)), kl.Dense(2)])
    ag.backend_of(model)[WEIGHTS].save(model, tmp_path / "a.keras")
    assert not asked
    assert module_utils.tensorflow._available is None  # as it was
    model.save(tmp_path / "b.keras")
    assert asked  # what Keras does
    np.testing.assert_array_equal(
        keras.saving.load_model(tmp_path / "a.keras").layers[0].kernel, model.layers[0].kernel
    )


def changed(archive: Path, folder: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy with another content of one member."""
    path = folder / "b.keras"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            copy.writestr(name, change(content) if name == member else content)
    return path


def activated(activation: Any) -> Callable[[bytes], bytes]:
    """The configuration with another function in the layer ``act``."""

    def change(content: bytes) -> bytes:
        config = json.loads(content)
        layer = next(x for x in config["config"]["layers"] if x["name"] == "act")
        layer["config"]["activation"] = activation
        return json.dumps(config).encode()

    return change


def function(name: str, module: str = "builtins") -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def made(name: str, module: str, **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def refused(path: Path) -> str:
    with pytest.raises((ag.InvalidWeights, ag.InvalidInput)) as caught:
        ag.load(str(path), backend="keras")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_agnostic_and_keras_write_is_read(archive: Path) -> None:
    model = ag.load(str(archive), backend="keras")
    card = card_of(model)
    assert card is not None
    assert card.size == (4, 4)
    assert model.get_layer("act").activation is keras.activations.softplus


def test_a_quantized_model_is_read(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), kl.Dense(4)])
    model.quantize("int8")
    model.save(tmp_path / "a.keras")
    for ours, theirs in zip(model.get_weights(), ag.load(str(tmp_path / "a.keras")).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "named",
    [
        function("set_backend", "keras.config"), function("set_random_seed", "keras.utils"),
        function("clear_session", "keras.utils"), function("enable_unsafe_deserialization", "keras.config"),
        function("deserialize"), function("system", "os"), function("run", "keras.src.saving"),
        function("get", "keras.losses"),
        function("set_floatx", "keras.backend"), function("custom_gradient", "keras.ops"),
        made("CSVLogger", "keras.callbacks", filename="witness"),
        made("ModelCheckpoint", "keras.callbacks", filepath="w"),
        made("Popen", "subprocess", args=["touch", "witness"]), made("TFSMLayer", "keras.layers", filepath="witness"),
        made("TorchModuleWrapper", "keras.layers"),
        made("StringLookup", "keras.layers", vocabulary="/etc/passwd"),
        made("__lambda__", "builtins", value="x"), made("__typespec__", "builtins", value="x"),
        made("__numpy__", "builtins", value=["a"], dtype="S4000000000"), function("get_file", "keras.utils"),
        {"class_name": ["Dense"], "config": {}}, {"class_name": "NoSuchLayer", "config": {}},
    ],
    ids=lambda x: str(x["class_name"]) + str(x["config"])[:24],
)  # fmt: skip
def test_only_what_computes_is_made_or_called(
    named: dict[str, Any], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called: list[str] = []
    for module, name in (
        (keras.config, "set_backend"),
        (keras.utils, "set_random_seed"),
        (keras.utils, "clear_session"),
    ):
        monkeypatch.setattr(module, name, lambda *_, **__: called.append("called"))
    said = refused(changed(archive, tmp_path, "config.json", activated(named)))
    assert "would call" in said
    assert "trust=True (--trust)" in said
    assert called == []
    assert [x.name for x in tmp_path.iterdir()] == ["b.keras"]
    # Wherever it stands, and as an initializer as well.
    for where in ("build_config", "extra"):
        path = changed(
            archive, tmp_path, "config.json", lambda x, w=where: json.dumps({**json.loads(x), w: [named]}).encode()
        )
        assert "would call" in refused(path)


def test_what_the_process_registered_and_what_is_trusted_is_called(archive: Path, tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("tested")
    def doubled(x: Any) -> Any:
        return x * 2

    for allowed in (
        function("tested>doubled"), function("relu", "keras.ops"), function("relu6"), made("LeakyReLU", "keras.layers"),
    ):  # fmt: skip
        ag.load(str(changed(archive, tmp_path, "config.json", activated(allowed))), backend="keras")
    code = keras.Sequential([keras.Input((2,)), kl.Lambda(lambda x: x * 3)])
    code.save(tmp_path / "lambda.keras")
    assert "a Lambda layer's code" in refused(tmp_path / "lambda.keras")
    model = ag.load(str(tmp_path / "lambda.keras"), backend="keras", trust=True)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(np.ones((1, 2)))), [[3, 3]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: b"[" * 100_000 + b"]" * 100_000, "nested more than 200 deep"),
        (lambda x: json.dumps({"a": json.loads("[" * 300 + "]" * 300)}).encode(), "nested more than 200 deep"),
        (lambda x: x[:-20], "is damaged"),
        (lambda x: b"\xff\xfe", "is damaged"),
        (lambda x: b"[]", "cannot be read as a model"),
        (lambda x: x.replace(b'"units": 2', b'"units": 2000000000'), "are allowed for its"),
        (lambda x: x.replace(b"[null, 4, 4, 3]", b"[null, 4000000, 4000000, 3]"), "impossible shape"),
    ],
)
def test_a_hostile_configuration_is_one_sentence(change: Any, said: str, archive: Path, tmp_path: Path) -> None:
    path = changed(archive, tmp_path, "config.json", change)
    assert said in refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", [1e999, 4]), ("size", [-1, 4]), ("size", [10**30, 4]), ("size", "44"), ("size", [4.5, 4]),
        ("preprocessing", {"mean": [1e999], "std": [1], "scale": 1, "channel_order": "RGB"}),
        ("preprocessing", {"mean": [0], "std": [-1], "scale": 1, "channel_order": "RGB"}),
        ("preprocessing", {"mean": [0], "std": [1], "scale": 1, "channel_order": ["RGB"]}),
        ("aliases", {"a": 3}), ("class_names", [3]),
    ],
)  # fmt: skip
def test_a_hostile_card_is_one_sentence(key: str, value: Any, archive: Path, tmp_path: Path) -> None:
    path = changed(archive, tmp_path, "agnostic.json", lambda x: json.dumps({**json.loads(x), key: value}).encode())
    assert "is not valid" in refused(path)
    path = changed(archive, tmp_path, "agnostic.json", lambda x: b"[" * 100_000)
    assert "is not valid" in refused(path)


# HDF5 ----------------------------------------------------------------------------------------------------------------
def test_a_hostile_weights_file_is_one_sentence(archive: Path, tmp_path: Path) -> None:
    model = ag.load(str(archive), backend="keras")
    before = [x.copy() for x in model.get_weights()]
    path = tmp_path / "a.weights.h5"

    def filled(change: Callable[[Any], None]) -> str:
        model.save_weights(path)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(ag.InvalidWeights) as caught:
            ag.backend_of(model)[WEIGHTS].load_weights(model, path, "it")
        assert "\n" not in str(caught.value)
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
        return str(caught.value)

    def first(file: Any) -> Any:
        found: list[Any] = []
        file.visititems(lambda _, x: found.append(x) if isinstance(x, h5py.Dataset) else None)
        return found[0]

    def nan(file: Any) -> None:
        first(file)[...] = np.nan

    def replaced(**options: Any) -> Callable[[Any], None]:
        def change(file: Any) -> None:
            name = first(file).name
            del file[name]
            file.create_dataset(name, **options)

        return change

    def link(file: Any) -> None:
        file["out"] = h5py.ExternalLink("/etc/hostname", "/")

    assert "holds numbers that are not finite" in filled(nan)
    assert "points into another place or file" in filled(link)
    assert "does not fit" in filled(replaced(data=np.zeros((7, 7), np.float32)))
    assert "which is no number" in filled(replaced(data=np.array([b"abc"])))
    assert "are allowed for its" in filled(replaced(shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1024, 1024)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ag.InvalidWeights, match="is damaged"):
        ag.backend_of(model)[WEIGHTS].load_weights(model, path, "it")


def test_damaged_weights_in_an_archive_are_seen(archive: Path, tmp_path: Path) -> None:
    def damaged(content: bytes) -> bytes:
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "r+") as file:

            def spoil(_: str, x: Any) -> None:
                if isinstance(x, h5py.Dataset) and x.dtype.kind == "f":
                    x[...] = np.inf

            file.visititems(spoil)
        return buffer.getvalue()

    assert "not finite" in refused(changed(archive, tmp_path, "model.weights.h5", damaged))
    bomb = tmp_path / "c.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", b" " * 300_000_000)
    assert "are allowed for its" in refused(bomb)
