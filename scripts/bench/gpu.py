"""What a GPU takes for pictures, update rules and records, against what a competent user writes there.

    .venv/bin/python scripts/bench/gpu.py [--device cuda] [--rounds 5] [--only pictures]

Everything is measured in turn in one process, by the clock, the device waited for at both ends; medians.

- *pictures*: VGG16 with random weights, 64 channels of two layers, milliseconds a channel and step, beside a batch loop
  (cut at the layer, frozen, channels last, bfloat16 by autocast), with the fraction of the measured peak, and what a
  call of one step takes;
- *classes*: 24 classes of the embedded network in 128 steps, and whether all runs gave the same pixels;
- *rules*: a step for the weights of ResNet-50 beside PyTorch's own ``foreach`` and ``fused``;
- *records*: one layer of ResNet-50, milliseconds an image, beside the model alone;
- *waits*: copies between main memory and the device, and waits for it, that one step more adds to an ascent: there
  should be none.

``--device cpu`` tries the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from peers_job import Job
from peers_torch import MODULES
from report import add_option, headline, keep, spread

import agnostic as ag

Cases = dict[str, dict[str, Any]]


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Of one call, until the device has done all of it."""
    wait(device)
    start = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until the device has nothing to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(
    contestants: dict[str, Callable[[], Any]], given: argparse.Namespace, scale: float
) -> dict[str, list[float]]:
    """What each took in each round, times ``scale``; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(given.rounds + 1):
        for name, function in contestants.items():
            spent = seconds(function, given.device) * scale
            if number:
                times[name].append(spent)
    return times


def told(cases: Cases, title: str, times: dict[str, list[float]], unit: str, peer: str) -> None:
    """Print medians, and keep them."""
    over = statistics.median(times[peer])
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{title}, {name}: {middle:.3f} {unit}, {over / middle:.2f} times ahead of {peer}", flush=True)
        cases[f"{title}, {name}"] = spread(values, unit, over=over)


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a square matrix product, the best of seven."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: torch.matmul(a, b), device) for _ in range(7))


def batch_loop(job: Job, model: torch.nn.Module, device: torch.device) -> None:
    """All channels at once."""
    rows, channels = torch.arange(job.count, device=device), torch.tensor(job.channels, device=device)
    images = torch.rand(job.count, 3, job.size, job.size, device=device) * 20 + 128
    for _ in range(job.steps):
        images.requires_grad_()
        with torch.autocast(device.type, torch.bfloat16):
            output = model(images.contiguous(memory_format=torch.channels_last))
        (gradient,) = torch.autograd.grad(output[rows, channels].float().mean((1, 2)).sum(), images)
        images = (images + gradient / (gradient.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-5)).detach()
    images.cpu()


def pictures(given: argparse.Namespace) -> Cases:
    """See the module."""
    cases: Cases = {}
    model = ag.load("torchvision:vgg16", weights="random").to(given.device)
    top = peak(torch.bfloat16, given.device)
    for layer in ("block3_conv1", "block4_conv1"):
        job = Job("classic", layer, given.count, given.steps, 150)
        cut = torchvision.models.vgg16(weights=None).eval().features[: MODULES[layer] + 1].requires_grad_(False)
        cut = cut.to(given.device, memory_format=torch.channels_last)

        def ours(steps: int, layer: str = layer, job: Job = job, **options: Any) -> Any:
            objective = ag.objectives.channel(layer, job.channels)
            return ag.visualize(model, objective, recipe="classic", size=job.size, steps=steps, **options)

        contestants: dict[str, Callable[[], Any]] = {
            "batch loop": lambda job=job, cut=cut: batch_loop(job, cut, given.device),
            "ours default": lambda ours=ours, job=job: ours(job.steps),
            "ours float32": lambda ours=ours, job=job: ours(job.steps, dtype="float32"),
        }
        times = in_turn(contestants, given, 1e3 / (job.count * job.steps))
        told(cases, layer, times, "ms", "batch loop")
        reached = job.operations / (statistics.median(times["ours default"]) / 1e3) / top
        print(f"{layer}, ours default: {reached:.0%} of {top / 1e12:.1f} TFLOP/s in bfloat16", flush=True)
        one = in_turn({"a call of one step": lambda ours=ours: ours(1)}, given, 1e3)
        told(cases, layer, one, "ms", "a call of one step")
    return cases


def classes(given: argparse.Namespace) -> Cases:
    """See the module."""
    model = ag.load("efficientnet_lite0").to(given.device)
    drawn: list[np.ndarray[Any, Any]] = []
    count, steps = (24, 128) if given.device.type == "cuda" else (2, 2)

    def run() -> None:
        drawn.append(np.asarray(ag.visualize(model, ag.objectives.logit(range(count)), steps=steps, size=160)))

    cases: Cases = {}
    told(cases, "classes", in_turn({f"{count} in {steps} steps": run}, given, 1.0), "s", f"{count} in {steps} steps")
    far = max(float(np.abs(x - drawn[0]).max()) for x in drawn[1:])
    print(f"classes, the same seed again: at most {far * 255:.3f} of 255 apart", flush=True)
    cases["classes, the same seed again"] = {"median": far * 255, "unit": "of 255"}
    return cases


def rules(given: argparse.Namespace) -> Cases:
    """See the module."""
    cases: Cases = {}
    network = torchvision.models.resnet50(weights=None).to(given.device)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    for name, spec, theirs in (
        ("Adam", ag.optimizers.Adam.torch(), torch.optim.Adam),
        ("SGD", ag.optimizers.SGD(0.1, 0.9), torch.optim.SGD),
    ):
        options = {"momentum": 0.9, "lr": 0.1} if name == "SGD" else {}
        contestants = {
            "foreach": theirs(network.parameters(), foreach=True, **options).step,
            "fused": theirs(network.parameters(), fused=True, **options).step,
            "ours": ag.optimizers.build(spec, network).step,
            "ours, exact rule": ag.optimizers.build(spec, network, native=False).step,
        }
        told(cases, name, in_turn(contestants, given, 1e3), "ms", "foreach")
    return cases


def records(given: argparse.Namespace) -> Cases:
    """See the module."""
    model = torchvision.models.resnet50(weights=None).eval().to(given.device)
    images = torch.randn(16, 3, 224, 224, device=given.device)

    def alone() -> None:
        with torch.inference_mode():
            model(images)

    contestants = {"the model alone": alone, "ours": lambda: ag.capture(model, images, "avgpool")}
    cases: Cases = {}
    told(cases, "records", in_turn(contestants, given, 1e3 / 16), "ms", "the model alone")
    return cases


def waits(given: argparse.Namespace) -> Cases:
    """See the module."""
    from torch.profiler import ProfilerActivity, profile

    model = ag.load("efficientnet_lite0").to(given.device)
    watched = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if given.device.type == "cuda" else [])]

    def events(steps: int) -> int:
        with profile(activities=watched) as seen:
            ag.visualize(model, ag.objectives.logit([0, 1]), steps=steps, size=160)
        names = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "Memcpy HtoD", "Memcpy DtoH")
        return sum(event.count for event in seen.key_averages() if event.key.startswith(names))

    events(1)
    found = [events(steps) for steps in (2, 6)]
    more = (found[1] - found[0]) / 4
    print(f"waits: {more:.2f} copies and waits a step", flush=True)
    return {"waits": {"median": more, "unit": "a step"}}


PARTS: dict[str, Callable[[argparse.Namespace], Cases]] = {
    "pictures": pictures, "classes": classes, "rules": rules, "records": records, "waits": waits,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=64, help="channels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given several times")
    add_option(parser)
    given = parser.parse_args()
    name = torch.cuda.get_device_name(given.device) if given.device.type == "cuda" else "no GPU"
    print(f"{headline()}; {name}", flush=True)
    cases: Cases = {}
    for part in given.only or PARTS:
        cases |= PARTS[part](given)
    keep("gpu", cases, given.json, device=name, count=given.count, steps=given.steps)


if __name__ == "__main__":
    main()
