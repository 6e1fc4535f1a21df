"""What Keras models and arrays do on a GPU, on the engine of this process; each check takes the device.

Run by scripts/gpu-checks, once an engine.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import tempfile
from typing import Any

import keras
import numpy as np

import agnostic as ag
from agnostic import optimizers as ago
from tests.gpu import keras_network
from tests.gpu.running import command, main, refused, succeeded

ENGINE = keras.config.backend()
MISSING = "cuda:7"
MODEL = f"{keras_network.__file__}:make"
# Convolutions on a GPU multiply in TF32 by default, which keeps 10 bits: 2^-11 of each of the products of two layers,
# whose sums are below 4 here.
NEAR = 4 * 2 * 2**-11


def network(where: str) -> Any:
    with keras.device(_word(where)):
        return keras_network.make()


def _word(device: str) -> str:
    return device if ENGINE == "torch" else device.replace("cuda", "gpu")


def photo(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).random((count, 24, 24, 3), np.float32)


def placed(x: Any, device: str) -> Any:
    """An array of the engine on a device."""
    with keras.device(_word(device)):
        return keras.ops.convert_to_tensor(x)


def place(x: Any) -> str:
    """``"cpu"`` or ``"gpu"``: where an array of the engine is."""
    text = str(x.device if ENGINE != "jax" else next(iter(x.devices())).platform).lower()
    return "cpu" if "cpu" in text else "gpu"


def near(a: Any, b: Any, within: float = NEAR) -> None:
    a, b = (np.asarray(keras.ops.convert_to_numpy(x), float) for x in (a, b))
    assert a.shape == b.shape, (a.shape, b.shape)
    far = float(np.abs(a - b).max())
    assert far <= within, f"{far} apart, at most {within} is rounding"


def check_inputs_of_another_device_than_the_model(device: str) -> None:
    models = {where: network(where) for where in ("cpu", device)}
    expected = ag.capture(models["cpu"], photo(), "*").numpy()
    for where, model in models.items():
        for inputs in (photo(), placed(photo(), "cpu"), placed(photo(), device)):
            got = ag.capture(model, inputs, "*")
            for name in expected:
                near(got[name], expected[name])
            with ag.watch(model, "conv") as record:
                model(placed(photo(), where))
            near(record["conv"], expected["conv"])
            near(ag.submodel(model, "conv")(placed(photo(), where)), expected["conv"])


def check_layers_and_flops_are_the_cpus(device: str) -> None:
    def listed(model: Any, inputs: Any) -> list[Any]:
        return [(x.name, x.kind, x.shape, x.axes, x.parameters, x.flops) for x in ag.layers(model, inputs)]

    here, there = network("cpu"), network(device)
    assert listed(here, photo()) == listed(there, photo()) == listed(there, placed(photo(), "cpu"))


def check_visualize_wherever_the_model_is(device: str) -> str:
    far = []
    objective = ag.objectives.channel("conv", [1, 2])
    options: dict[str, Any] = {"size": 24, "steps": 4, "dtype": "float32"}
    first = None
    for where in ("cpu", device):
        model = network(where)
        for name in (None, "cpu", device, device.replace("cuda", "gpu")):
            images = ag.visualize(model, objective, device=name, **options)
            first = images if first is None else first
            assert np.isfinite(images).all()
            far.append(float(np.abs(images - first).mean()))
        refused(
            lambda model=model: ag.visualize(model, objective, device=MISSING, **options),
            f"'{MISSING}' cannot be used",
        )
        assert place(model.layers[0].kernel.value) == ("cpu" if where == "cpu" else place(placed(0.0, device)))
    assert max(far) < 0.02, far
    return f"pixels are at most {max(far):.2g} from the CPU's, on average of an image"


def check_visualize_is_deterministic(device: str) -> str:
    model = network(device)
    one, two = (ag.visualize(model, ag.objectives.channel("conv", [0, 1]), size=24, steps=8) for _ in range(2))
    far = float(np.abs(one - two).max())
    assert far < 0.05, f"the same call gave pixels {far} apart"
    return f"the same call twice is at most {far:.2g} apart"


def check_extract_gives_the_cpus_numbers(device: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), np.uint8)
    options: dict[str, Any] = {"reduce": ["values", "mean", "max"], "top": 3, "batch_size": 8}
    with tempfile.TemporaryDirectory() as folder, keras.device(_word(device)):
        there = ag.extract(network(device), images, ["conv"], f"{folder}/there.zarr", **options)
        values, places = (np.asarray(there["conv"][name]) for name in ("values", "max_place"))
        found = values[np.arange(20)[:, None], places[..., 0], places[..., 1], np.arange(values.shape[3])]
        np.testing.assert_array_equal(found, there["conv"]["max"])
        with keras.device("cpu"):
            here = ag.extract(network("cpu"), images, ["conv"], f"{folder}/here.zarr", **options)
        for name in ("values", "mean", "max"):
            near(here["conv"][name], there["conv"][name])


def check_gradients(device: str) -> None:
    model = network(device)
    with keras.device(_word(device)):
        expected = None
        for where in ("cpu", device):
            x = placed(photo(), where)
            if ENGINE == "torch" and place(x) != place(model.layers[0].kernel.value):
                continue  # PyTorch itself does not compute with two devices
            got = ag.gradients(lambda x: model(x) ** 2, x)
            expected = got if expected is None else expected
            near(got, expected)


def check_optimizers_and_guards(device: str) -> None:
    ends = []
    for where in ("cpu", device):
        model = network(where)
        with keras.device(_word(where)):
            model.compile(ago.build(ago.Adam.torch(learning_rate=0.01), model), "mse")
            with ag.watch(model, nonfinite="raise"):
                model.fit(photo(8), np.ones((8, 5), np.float32), epochs=1, batch_size=4, verbose=0, shuffle=False)
        ends.append(model.get_weights())
    for a, b in zip(*ends, strict=True):
        # Two steps of at most the rate each; a sign may turn where a gradient is rounding alone.
        near(a, b, 2 * 2 * 0.01)


def check_a_deterministic_network_is_not_called_random(device: str) -> None:
    model, other = network(device), network(device)
    assert ag.compare(model, other, photo(8)).same
    head = other.get_layer("head")
    head.set_weights([x + 1 for x in head.get_weights()])
    assert not ag.compare(model, other, photo(8)).same


def check_augmentation(device: str) -> None:
    change = ag.augmentation.Augmentation(rotation=(-20, 20), horizontal_flip=0.5)
    expected = change(photo(6), seed=0)
    for where in ("cpu", device):
        x = placed(photo(6), where)
        got = change(x, seed=0, layout="NHWC")
        assert place(got) == place(x)
        near(got, expected, 1e-4)


def check_the_command(device: str) -> None:
    from PIL import Image

    options = ["--backend", "keras", "--engine", ENGINE, "--device"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Image.fromarray((photo(1)[0] * 255).astype(np.uint8)).save("photo.png")
        verbs = {
            "layers": ["layers", MODEL],
            "taps": ["taps", MODEL, "photo.png", "--layer", "conv"],
            "filters": ["filters", MODEL, "--layer", "conv", "--channels", "0", "--size", "24", "--steps", "2"],
        }
        for name, arguments in verbs.items():
            for i, where in enumerate(("cpu", device, device.replace("cuda", "gpu"))):
                succeeded(*arguments, *([] if name == "layers" else ["--out", f"{name}{i}"]), *options, where)
            code, _, err = command(*arguments, *options, MISSING)
            assert code == 2, f"{name}: {code}, {err}"
            assert f"'{MISSING}' cannot be used" in err.strip().splitlines()[-1], err
        np.save("photo.npy", photo())
        both = ["compare", MODEL, MODEL, "--inputs", "photo.npy"]
        for side in "ab":
            both += [f"--backend-{side}", "keras", f"--engine-{side}", ENGINE]
        code, out, err = command(*both, "--device-a", device, "--device-b", "cpu")
        # An engine that multiplies in TF32 by default gives other numbers on a GPU, which is what has to be said.
        assert code == 0 or (code == 1 and "fewer digits: tf32" in out and "weights differ" not in out), out + err


def check_a_model_that_is_copied_stays_where_it_is(device: str) -> None:
    model = network(device)
    twin = copy.deepcopy(model)
    near(twin(placed(photo(), device)), model(placed(photo(), device)))


if __name__ == "__main__":
    sys.exit(main(globals()))
