"""Speed of the ascent of the torch backend on VGG16, layer by layer, against the classic loop as tutorials have it.

    .venv/bin/python scripts/bench/ascent_torch.py [--json FILE]

``scripts/bench/ascent.py`` runs it together with the engines of Keras, and puts all in one table.

Same work on both sides: images of 150 x 150 that maximize one channel of a convolution each, raw pixels, normalized
gradients, random weights. The peer is the classic loop: the whole network runs forward, one filter at a time, and its
weights are differentiated as well. Rounds of all contenders are interleaved, in one process; medians and spread are
printed, in milliseconds a filter and step, with the fraction of the processor's matrix-product peak (measured here,
same type) that our time means for the multiplications that a step needs at least.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

import agnostic as ag
from agnostic.files import atomic_path

LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1")
MODULES = ("features.0", "features.5", "features.10", "features.17")
SIZE = 150


def classic_loop(model: nn.Module, module: str, channel: int, steps: int) -> None:
    """The tutorials' loop: a hook records the layer, everything runs, everything is differentiated."""
    image = torch.rand(1, 3, SIZE, SIZE) * 20 + 128
    kept: dict[str, torch.Tensor] = {}
    handle = model.get_submodule(module).register_forward_hook(lambda m, i, o: kept.update(output=o.clone()))
    for _ in range(steps):
        image = image.detach().requires_grad_()
        model.zero_grad()
        model(image)
        kept["output"][0, channel].mean().backward()
        gradient = image.grad
        assert gradient is not None
        image = image + gradient / (gradient.square().mean().sqrt() + 1e-5)
    handle.remove()


def ours(model: nn.Module, layer: str, dtype: str, filters: int, steps: int) -> None:
    """``filters`` images at once."""
    ag.visualize(
        model, ag.objectives.channel(layer, range(filters)), recipe="classic", size=SIZE, steps=steps, dtype=dtype
    )


def seconds(function: Callable[[], None]) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak(dtype: torch.dtype, side: int = 2048) -> float:
    """Floating-point operations a second of a square matrix product, the best of seven."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    times = [seconds(lambda: torch.matmul(a, b)) for _ in range(7)]
    return 2 * side**3 / min(times)


def operations(model: nn.Module, module: str) -> float:
    """Floating-point operations of a step: forward and backward through the convolutions before the tapped one.

    The tapped convolution itself is one channel, which is not counted.
    """
    total, shape = 0.0, {}

    def hook(m: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        shape[m] = output.shape

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model(torch.zeros(1, 3, SIZE, SIZE))
    for handle in handles:
        handle.remove()
    for name, m in model.named_modules():
        if name == module:
            break
        if isinstance(m, nn.Conv2d):
            total += 2 * 2 * shape[m].numel() * m.in_channels * m.kernel_size[0] * m.kernel_size[1]
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filters", type=int, default=16, help="filters of one call of ours")
    parser.add_argument("--steps", type=int, default=8, help="steps of one call of ours")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    model = ag.load("torchvision:vgg16", weights="random")
    # A trained model's weights take gradients, as the tutorials' do.
    model.requires_grad_(True)
    capabilities = torch.cpu.get_capabilities()
    has = [name for name in ("amx_tile", "avx512_bf16", "avx512_f") if capabilities.get(name)]
    print(f"{platform.processor() or platform.machine()}, {', '.join(has)}; {torch.get_num_threads()} threads")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, numpy {np.__version__}")
    peaks = {"float32": peak(torch.float32), "bfloat16": peak(torch.bfloat16)}
    print("matrix-product peak: " + ", ".join(f"{name} {value / 1e9:.0f} GFLOP/s" for name, value in peaks.items()))

    loop_steps, steps = 2, arguments.steps
    rows = {}
    for layer, module in zip(LAYERS, MODULES, strict=True):
        contenders: dict[str, tuple[Callable[[], None], int]] = {
            "classic loop": (lambda m=module: classic_loop(model, m, 3, loop_steps), loop_steps),
        }
        for dtype in peaks:
            work = steps * arguments.filters
            contenders[dtype] = (lambda x=layer, d=dtype: ours(model, x, d, arguments.filters, steps), work)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for function, _ in contenders.values():
            function()  # warm up
        for _ in range(arguments.rounds):
            for name, (function, work) in contenders.items():
                times[name].append(seconds(function) / work * 1e3)
        rows[layer] = times
        need = operations(model, module)
        line = f"{layer:13s} {need / 1e9:5.1f} GFLOP"
        for name, values in times.items():
            middle = statistics.median(values)
            line += f"   {name} {middle:6.1f} ms ({min(values):.1f}-{max(values):.1f})"
            if name in peaks:
                ratio = statistics.median(times["classic loop"]) / middle
                line += f" = {ratio:5.1f}x, {need / (middle / 1e3) / peaks[name]:4.0%} of peak"
        print(line, flush=True)
    together = {name: sum(statistics.median(row[name]) for row in rows.values()) for name in ("classic loop", *peaks)}
    print(
        f"together      classic loop {together['classic loop']:.0f} ms"
        + "".join(f"   {d} {together[d]:.1f} ms = {together['classic loop'] / together[d]:.1f}x" for d in peaks)
    )
    if arguments.json:
        with atomic_path(arguments.json) as temporary:
            layers = {
                layer: {"ms": {"loop" if x == "classic loop" else x: v for x, v in ms.items()}}
                for layer, ms in rows.items()
            }
            found = {"processor": has, "torch": torch.__version__, "peaks": peaks, "layers": layers}
            temporary.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
