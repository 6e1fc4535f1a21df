"""What PyTorch models, optimizers and arrays do on a GPU; each check takes the device. Run by scripts/gpu-checks."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import agnostic as ag
from agnostic import optimizers as ago
from agnostic.reference import optimizers as reference
from tests.gpu import torch_network
from tests.gpu.running import command, main, refused, succeeded
from tests.optimizers.problems import CASES

START, GRADIENT, _ = reference.standard_problem()
# Both sides compute in float64: some 100 roundings of 1.1e-16 on numbers below 10, enlarged by at most 100 by the small
# denominators of adaptive rules.
EXACT = 1e-11
MISSING = "cuda:7"


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    return torch_network.make().to(dtype).eval()


def photo(count: int = 2, side: int = 24) -> np.ndarray:
    return np.random.default_rng(0).random((count, 3, side, side), np.float32)


def near(a: Any, b: Any, within: float) -> float:
    a, b = (x.detach().cpu().double().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, float) for x in (a, b))
    assert a.shape == b.shape, (a.shape, b.shape)
    far = float(np.abs(a - b).max())
    assert far <= within, f"{far} apart, at most {within} is rounding"
    return far


def check_extract_keeps_the_gpu_busy(device: str) -> str:
    """The numbers of the CPU, and no wait for the device but one for each batch, one batch behind."""
    images = np.random.default_rng(0).integers(0, 256, (96, 24, 24, 3), np.uint8)
    options: dict[str, Any] = {
        "reduce": ["values", "mean", "max", "histogram", "covariance"],
        "top": 3,
        "batch_size": 8,
    }
    with tempfile.TemporaryDirectory() as folder:
        layers = ["0", "2", "3", "6"]
        here = ag.extract(network(), images, layers, Path(folder, "here.zarr"), **options)
        model = network().to(device)
        there = ag.extract(model, images, layers, Path(folder, "there.zarr"), **options)
        # Nine and more batches of the same kind: of those after the first none waits by itself.
        waits = _implicit_waits(lambda: ag.extract(model, images, layers, Path(folder, "again.zarr"), **options))
        for layer in layers:
            for name in ("values", "mean", "max"):
                # Sums of 72 products at most, of which TF32 keeps 10 bits, on numbers below 4.
                near(here[layer][name], there[layer][name], 4 * 2 * 2**-10)
            if "max_place" in there[layer]:
                values, places = (np.asarray(there[layer][name]) for name in ("values", "max_place"))
                found = values[np.arange(96)[:, None], np.arange(values.shape[1]), places[..., 0], places[..., 1]]
                np.testing.assert_array_equal(found, there[layer]["max"])
    assert waits <= 24, f"{waits} waits for the device in 12 batches: more than what is made once"
    return f"{waits} waits for the device beside one for each of 12 batches"


def _implicit_waits(run: Any) -> int:
    """How often PyTorch waited for the GPU without being asked to."""
    if not torch.cuda.is_available():
        run()
        return 0
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchroniz" in str(x.message) for x in said)


# Optimizers -----------------------------------------------------------------------------------------------------------
def _specs() -> dict[str, ago.specs.Spec]:
    found = {}
    for name, (cls, options) in CASES.items():
        for framework in cls.natives:
            found[f"{name} as {framework}"] = getattr(cls, framework)(**options)
    found["Muon"] = ago.Muon.torch(iteration_dtype="parameter")
    for name, options in {
        "clip_norm": {"clip_norm": 0.1},
        "clip_global_norm": {"clip_global_norm": 0.1},
        "clip_value": {"clip_value": 0.01},
        "ema": {"ema_momentum": 0.9},
        "accumulate": {"accumulate": 2},
    }.items():
        found[f"Adam with {name}"] = ago.Adam.keras(**options)
    return found


def _step(optimizer: Any, parameters: list[Any], steps: int = 1) -> None:
    for _ in range(steps):
        for p, g in zip(parameters, GRADIENT([p.detach().cpu().numpy() for p in parameters]), strict=True):
            p.grad = torch.tensor(g, device=p.device)
        optimizer.step()


def _leaves(device: str, muon: bool) -> list[Any]:
    return [torch.tensor(p, device=device).requires_grad_() for p in START]


def _build(spec: Any, parameters: list[Any], native: bool | None) -> Any:
    return ago.build(spec, [{"params": parameters}], native=native)


def check_checkpoints_of_every_rule_loaded_on_the_device(device: str) -> str:
    """Two steps, a checkpoint, loaded with map_location, one step more: everywhere what the CPU gets."""
    tried = 0
    for name, spec in _specs().items():
        if isinstance(spec, ago.Muon) and any(p.ndim != 2 for p in START):
            continue
        for native in (False, None):
            here = _leaves("cpu", False)
            one = _build(spec, here, native)
            _step(one, here, 2)
            weights = [p.detach().clone() for p in here]
            buffer = io.BytesIO()
            torch.save(one.state_dict(), buffer)
            _step(one, here, 2)
            for place, location in ((device, device), (device, "cpu"), ("cpu", device)):
                there = [w.clone().to(place).requires_grad_() for w in weights]
                two = _build(spec, there, native)
                buffer.seek(0)
                two.load_state_dict(torch.load(buffer, map_location=location, weights_only=True))
                try:
                    _step(two, there, 2)
                except Exception as error:
                    raise AssertionError(
                        f"{name}, native={native}, parameters on {place}, loaded on {location}"
                    ) from error
                assert all(p.device.type == torch.device(place).type for p in there)
                for a, b in zip(here, there, strict=True):
                    near(a, b, EXACT)
                tried += 1
    return f"{tried} checkpoints"


def check_optimizers_built_on_the_device_and_carried_to_keras_and_back_in_numpy(device: str) -> None:
    for spec in (ago.Adam.keras(), ago.SGD(0.1, 0.9, convention="keras"), ago.Adam.torch(ema_momentum=0.9)):
        net = network(torch.float64).to(device)
        optimizer = ago.build(spec, net)
        x = torch.tensor(photo(), device=device, dtype=torch.float64)
        for _ in range(2):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
        other = copy.deepcopy(net)
        two = ago.convert(optimizer, "torch", other)
        for model, one in ((net, optimizer), (other, two)):
            one.zero_grad()
            model(x).square().sum().backward()
            one.step()
        for a, b in zip(net.parameters(), other.parameters(), strict=True):
            near(a, b, 1e-9)


def check_float16_norms_on_the_device(device: str) -> None:
    p = torch.zeros(2, device=device, dtype=torch.float16, requires_grad=True)
    optimizer = ago.build(ago.SGD(1.0, clip_norm=1.0), [{"params": [p]}])
    p.grad = torch.tensor([300.0, 400.0], device=device, dtype=torch.float16)
    optimizer.step()
    near(p, [-0.6, -0.8], 2**-10)


# Records --------------------------------------------------------------------------------------------------------------
def check_inputs_of_another_device_than_the_model(device: str) -> None:
    here, there = network(torch.float64), network(torch.float64).to(device)
    x = torch.tensor(photo()).double()
    expected = ag.capture(here, x, "*")
    for model, inputs in ((there, x), (here, x.to(device)), (there, x.to(device)), (there, photo())):
        got = ag.capture(model, inputs, "*")
        assert list(got) == list(expected)
        for name in expected:
            assert got[name].device.type == next(model.parameters()).device.type
            near(got[name], expected[name], 1e-9)
    for model, inputs in ((there, x), (here, x.to(device))):
        near(ag.submodel(model, "3")(inputs.to(next(model.parameters()).device)), expected["3"], 1e-9)


def check_layers_flops_and_program_are_the_cpus(device: str) -> None:
    def listed(model: Any, inputs: Any) -> list[Any]:
        return [(x.name, x.kind, x.shape, x.axes, x.parameters, x.flops) for x in ag.layers(model, inputs)]

    x = torch.tensor(photo())
    here, there = network(), network().to(device)
    assert listed(here, x) == listed(there, x) == listed(there, x.to(device)) == listed(here, x.to(device))
    assert str(ag.program(here, x)) == str(ag.program(there, x)).replace(f", device={device}", "")


def check_watch_and_non_finite_numbers(device: str) -> None:
    model = network().to(device)
    with ag.watch(model, "3", nonfinite="raise") as record:
        model(torch.tensor(photo(), device=device))
    assert record["3"].device.type == torch.device(device).type
    with torch.no_grad():
        model[3].weight[0] = float("nan")
    said = refused(lambda: _watched(model, device), error=ag.NonFinite)
    assert "3" in said, said


def _watched(model: Any, device: str) -> None:
    with ag.watch(model, nonfinite="raise"):
        model(torch.tensor(photo(), device=device))


def check_gradients(device: str) -> None:
    x = torch.tensor(photo()).double()
    model = network(torch.float64)
    expected = ag.gradients(lambda x: model(x).square(), x)
    model.to(device)
    got = ag.gradients(lambda x: model(x).square(), x.to(device))
    assert got.device.type == torch.device(device).type
    near(got, expected, 1e-9)


def check_prepare_and_a_record_on_disk(device: str) -> None:
    model = network().to(device)
    with tempfile.TemporaryDirectory() as folder:
        record = ag.capture(model, photo(), "*")
        record.save(Path(folder) / "kept.safetensors")
        kept = ag.taps.open(Path(folder) / "kept.safetensors")
        for name in record:
            near(np.asarray(kept[name]), record[name], 0)
    prepared = ag.prepare(model, np.full((24, 24, 3), 0.5, np.float32))
    ag.capture(model, prepared, "3")


# Pictures -------------------------------------------------------------------------------------------------------------
def check_visualize_wherever_the_model_is(device: str) -> str:
    here, there = network(), network().to(device)
    options: dict[str, Any] = {"size": 24, "steps": 4, "dtype": "float32"}
    objective = ag.objectives.channel("3", [1, 2])
    images = [
        ag.visualize(model, objective, device=name, **options)
        for model in (here, there)
        for name in (None, "cpu", device)
    ]
    assert next(here.parameters()).device.type == "cpu"
    assert next(there.parameters()).device.type == torch.device(device).type
    assert images[0].tobytes() == images[1].tobytes() == images[4].tobytes()
    for image in images:
        # Four steps of an adaptive rule from one start; TF32 keeps 10 bits of what a convolution multiplies.
        assert np.isfinite(image).all()
        assert np.abs(image - images[0]).mean() < 0.02
    for model in (here, there):
        refused(
            lambda model=model: ag.visualize(model, objective, device=MISSING, **options), f"'{MISSING}' cannot be used"
        )
    far = max(float(np.abs(images[i] - images[0]).max()) for i in (2, 3, 5))
    return f"pixels are at most {far:.2g} from the CPU's"


def check_visualize_is_deterministic(device: str) -> str:
    model = network().to(device)
    found = []
    for recipe in ("fourier", "classic", "maco"):
        one, two = (
            ag.visualize(
                model, ag.objectives.channel("3", [0, 1, 2]), recipe=recipe, size=24, steps=8, micro_batch=size
            )
            for size in (3, 3)
        )
        far = float(np.abs(one - two).max())
        found.append(f"{recipe} {far:.2g}")
        assert far < 0.05, f"{recipe}: the same call gave pixels {far} apart"
    return "the same call twice is at most so far apart: " + ", ".join(found)


def check_every_type_and_memory_format(device: str) -> None:
    model = network().to(device)
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        for memory in (None, "channels_last"):
            images = ag.visualize(
                model, ag.objectives.channel("3", 0), size=24, steps=3, dtype=dtype, memory_format=memory
            )
            assert np.isfinite(images).all(), (dtype, memory)


# Comparing ------------------------------------------------------------------------------------------------------------
def _wide() -> nn.Module:
    """Long sums, as in a residual network: 64 * 9 products each, which cuDNN adds in an order of its own."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()) for _ in range(8)]
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    ).eval()


def check_a_deterministic_network_is_not_called_random(device: str) -> str:
    said = []
    models = {"wide": _wide()}
    if device == "cpu":
        said.append("the CPU is spared ResNet-50")
    elif importlib.util.find_spec("torchvision") is None:
        said.append("torchvision is missing: no ResNet-50")
    else:
        from torchvision.models import resnet50

        models["ResNet-50"] = resnet50().eval()
    for name, model in models.items():
        model.to(device)
        other = copy.deepcopy(model)
        found = ag.compare(model, other, photo(8, 64))
        assert found.same, f"{name}: {found}"
        here = ag.compare(model, copy.deepcopy(model).cpu(), photo(8, 64))
        said.append(f"{name} on the device and on the CPU: {'same' if here.same else 'DIFFERENT'}")
        with torch.no_grad():
            list(other.modules())[-1].weight[0] += 1
        assert not ag.compare(model, other, photo(8, 64)).same
    return "; ".join(said)


def check_a_random_network_is_refused(device: str) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Any) -> Any:
            return self.conv(x + torch.rand_like(x))

    model = Noisy().to(device)
    refused(lambda: ag.compare(model, copy.deepcopy(model), photo()))


# Arrays ---------------------------------------------------------------------------------------------------------------
def check_augmentation_and_data(device: str) -> None:
    change = ag.augmentation.Augmentation(rotation=(-20, 20), zoom=(0.9, 1.1), horizontal_flip=0.5)
    x = torch.tensor(photo(6))
    got = change(x.to(device), seed=0)
    assert got.device.type == torch.device(device).type
    near(got, change(x, seed=0), 1e-4)
    rows = [torch.arange(n, dtype=torch.float32) for n in (3, 1, 5)]
    padded = ag.data.pad_sequences([row.to(device) for row in rows], dtype="float32")
    assert padded.device.type == torch.device(device).type
    near(padded, ag.data.pad_sequences(rows, dtype="float32"), 0)
    near(ag.data.shuffle(x.to(device), seed=3), ag.data.shuffle(x, seed=3), 0)


# The command ----------------------------------------------------------------------------------------------------------
MODEL, PLACE, SMALL = (
    f"{torch_network.__file__}:make",
    ["--backend", "torch", "--device"],
    ["--size", "24", "--steps", "2"],
)
VERBS = {
    "layers": ["layers", MODEL, "--size", "24"],
    "taps": ["taps", MODEL, "photo.png", "--layer", "3", "--size", "24"],
    "program": ["program", MODEL, "--inputs", "1x3x24x24"],
    "filters": ["filters", MODEL, "--layer", "3", "--channels", "0", *SMALL],
    "classes": ["classes", MODEL, "1", *SMALL],
    "trace": ["trace", MODEL, "--inputs", "photo.npy"],
}
WRITES = {"taps": "taps{}", "filters": "filters{}", "classes": "classes{}", "trace": "{}.trace"}
COMPARE = ["compare", MODEL, MODEL, "--inputs", "photo.npy", "--backend-a", "torch", "--backend-b", "torch"]


@contextlib.contextmanager
def _workplace() -> Any:
    """A folder with a model and photos, in which the process works."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Image.fromarray((photo(1)[0].transpose(1, 2, 0) * 255).astype(np.uint8)).save("photo.png")
        np.save("photo.npy", photo())
        yield


def check_each_verb_of_the_command_on_the_device(device: str) -> None:
    with _workplace():
        said = {}
        for name, arguments in VERBS.items():
            for i, where in enumerate(("cpu", device, device.replace("cuda", "gpu"))):
                out = ["--out", WRITES[name].format(i)] if name in WRITES else []
                said[name, i] = succeeded(*arguments, *out, *PLACE, where)
        assert said["layers", 0] == said["layers", 1] == said["layers", 2]
        succeeded("compare", "0.trace", "1.trace")


def check_a_device_that_is_not_there_is_one_sentence_of_each_verb(device: str) -> None:
    with _workplace():
        runs = {
            name: [*arguments, *(["--out", WRITES[name]] if name in WRITES else []), *PLACE, MISSING]
            for name, arguments in VERBS.items()
        }
        for name, arguments in {**runs, "compare": [*COMPARE, "--device-b", MISSING]}.items():
            code, _, err = command(*arguments)
            said = err.strip().splitlines()
            assert code == 2, f"{name}: exit code {code}, {err}"
            assert len(said) == 1, f"{name}: {err}"
            assert f"'{MISSING}' cannot be used" in said[0], said


def check_compare_between_devices(device: str) -> None:
    with _workplace():
        for a, b in ((device, device), (device, "cpu"), ("cpu", device))[: 1 if device == "cpu" else 3]:
            succeeded(*COMPARE, "--device-a", a, "--device-b", b)


if __name__ == "__main__":
    sys.exit(main(globals()))
