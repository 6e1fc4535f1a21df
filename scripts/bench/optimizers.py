"""Time of one step of every rule on a model of 25 million parameters: ours, torch.optim's foreach, Keras' own.

    python scripts/bench/optimizers.py               # PyTorch
    python scripts/bench/optimizers.py --engine jax  # Keras: a compiled fit(), a process an engine

PyTorch: the parameters of a ResNet-50 with gradients given, one ``step()``. Keras: ``fit()`` of a stack of dense layers
of as many parameters on one sample, so that the optimizer is most of a step; the contestants differ in it alone. Muon,
whose step is products of matrices, has smaller ones in both. Runs interleave, so that what else the machine does falls
on all alike; medians, with the quartiles beside them.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

from report import add_option, headline, keep, quartiles  # noqa: E402

from agnostic import optimizers as ago  # noqa: E402

Contestants = Mapping[str, Callable[[], Any]]

# Every rule that PyTorch has as well, as PyTorch computes it, so that both do the same work.
PEERS = (
    ago.SGD.torch(learning_rate=1e-3, momentum=0.9),
    ago.SGD.torch(learning_rate=1e-3),
    ago.RMSprop.torch(),
    ago.RMSprop.torch(momentum=0.9, centered=True),
    ago.Adagrad.torch(),
    ago.Adadelta.torch(),
    ago.Adam.torch(),
    ago.Adam.torch(amsgrad=True, weight_decay=0.01),
    ago.AdamW.torch(),
    ago.Adamax.torch(),
    ago.NAdam.torch(),
    ago.RAdam.torch(),
    ago.Adafactor.torch(),
    ago.Muon.torch(),
)
# What PyTorch has no class for, beside the class of its nearest relative.
RELATIVES = (
    (ago.SGD.keras(momentum=0.9), ago.SGD.torch(momentum=0.9)),
    (ago.RMSprop.keras(momentum=0.9), ago.RMSprop.torch(momentum=0.9)),
    (ago.Adam.keras(), ago.Adam.torch()),
    (ago.NAdam.keras(), ago.NAdam.torch()),
    (ago.Lion.keras(), ago.Adam.torch()),
    (ago.LAMB.keras(), ago.Adam.torch()),
)


def title(spec: ago.Spec) -> str:
    """The kind, and what is chosen of it."""
    extra = [n for n in ("momentum", "centered", "amsgrad") if getattr(spec, n, 0)]
    return " ".join([type(spec).__name__, *extra])


def chosen(spec: ago.Spec, only: Sequence[str]) -> bool:
    """Whether a specification is of one of the kinds that were asked for; all are where none was."""
    return not only or type(spec).__name__ in only


# PyTorch --------------------------------------------------------------------------------------------------------------
def shapes() -> list[tuple[int, ...]]:
    """The shapes of a ResNet-50: 161 tensors, 25.6 million numbers."""
    found: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            found += [(width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            found += [(width,)] * 4 + [(4 * width,)] * 2
            if block == 0:
                found += [(4 * width, inputs, 1, 1), (4 * width,), (4 * width,)]
            inputs = 4 * width
    return [*found, (1000, 2048), (1000,)]


def parameters(spec: ago.Spec) -> list[Any]:
    """Random parameters of those shapes with random gradients; for Muon ten square matrices."""
    import torch

    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in [(MUON_WIDTH, MUON_WIDTH)] * DEPTH if isinstance(spec, ago.Muon) else shapes():
        p = torch.randn(shape, generator=generator).requires_grad_()
        p.grad = torch.randn(shape, generator=generator)
        found.append(p)
    return found


def torch_contests(only: Sequence[str]) -> Iterator[Contestants]:
    """A contest a rule, whose first contestant is the one to beat; made one after the other, for the memory."""
    for spec in PEERS:
        name = title(spec)
        if not chosen(spec, only):
            continue
        # Ten groups of the very parameters that are in one, in the same order: what differs is the grouping alone.
        ours = parameters(spec)
        size = -(-len(ours) // 10)
        layers = [{"params": ours[i : i + size], "lr": 1e-4 * (1 + i)} for i in range(0, len(ours), size)]
        foreach = {} if isinstance(spec, ago.Muon) else {"foreach": True}  # torch.optim.Muon has one way alone
        yield {
            f"{name}: torch foreach": ago.build(spec, [{"params": parameters(spec)}], native=True, **foreach).step,
            f"{name}: ours": ago.build(spec, [{"params": ours}], native=False).step,
            f"{name}: ours, {len(layers)} groups": ago.build(spec, layers, native=False).step,
        }
    for spec, peer in RELATIVES:
        if not chosen(spec, only):
            continue
        theirs = ago.build(peer, [{"params": parameters(peer)}], native=True, foreach=True)
        ours = ago.build(spec, [{"params": parameters(spec)}], native=False)
        yield {f"torch {title(peer)} foreach": theirs.step, f"Keras' {title(spec)} by ours": ours.step}


# Keras ----------------------------------------------------------------------------------------------------------------
WIDTH, MUON_WIDTH, DEPTH, STEPS = 1600, 400, 10, 6

# Every rule that Keras has, as Keras computes it; the first three with a group a layer as well.
KERAS = (
    ago.SGD.keras(learning_rate=1e-3, momentum=0.9),
    ago.RMSprop.keras(),
    ago.Adam.keras(),
    ago.AdamW.keras(),
    ago.NAdam.keras(),
    ago.Adagrad.keras(),
    ago.Lion.keras(),
    ago.LAMB.keras(),
    ago.Adafactor.keras(),
    ago.Muon.keras(),
)


def keras_contests(only: Sequence[str]) -> Iterator[Contestants]:
    """Keras' own, ours on the same rule, and ours with a group a layer; a run is some steps of a compiled fit()."""
    import keras
    import numpy as np

    def fit(spec: ago.Spec, make: Callable[[Any], Any]) -> Callable[[], Any]:
        muon = isinstance(spec, ago.Muon)
        width = MUON_WIDTH if muon else WIDTH
        x = np.ones((STEPS, width), np.float32) / width
        keras.utils.set_random_seed(0)
        # Muon moves matrices; Keras' moves biases by Adam, which is not what is timed here.
        layers = [keras.layers.Dense(width, use_bias=not muon) for _ in range(DEPTH)]
        net = keras.Sequential([keras.Input((width,)), *layers])
        # PyTorch's engine compiles only where it is asked to, and needs a C++ compiler for it; Keras leaves it eager.
        net.compile(make(net), "mse")
        return lambda: net.fit(x, x, batch_size=1, verbose=0, shuffle=False)

    def by_layer(spec: Any, net: Any) -> Any:
        rules = {layer.name: {"learning_rate": 1e-4 * (1 + i)} for i, layer in enumerate(net.layers)}
        return ago.build(spec, ago.groups(net, rules), native=False)

    for number, spec in enumerate(KERAS):
        if not chosen(spec, only):
            continue
        name = title(spec)
        contest = {
            f"{name}: Keras' own": fit(spec, functools.partial(ago.build, spec, native=True)),
            f"{name}: ours": fit(spec, functools.partial(ago.build, spec, native=False)),
        }
        if number < 3:
            contest[f"{name}: ours, {DEPTH} groups"] = fit(spec, functools.partial(by_layer, spec))
        yield contest


# Timing ---------------------------------------------------------------------------------------------------------------
def race(contest: Contestants, repeats: int, per_run: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of a step, and the ratio to the first contestant: the median of the ratios of each round."""
    times: dict[str, list[float]] = {name: [] for name in contest}
    for repeat in range(repeats + 2):
        for name, run in contest.items():
            start = time.perf_counter()
            run()
            if repeat >= 2:  # state is made, and code compiled, at the first
                times[name].append(1e3 * (time.perf_counter() - start) / per_run)
    first = next(iter(times.values()))
    found = {}
    for name, own in times.items():
        low, middle, high = quartiles(own)
        ratio = statistics.median(a / b for a, b in zip(own, first, strict=True))
        found[name] = {"median": middle, "quartiles": [low, high], "unit": "ms", "ratio": ratio}
        print(f"{name:44} {middle:7.1f} ms ({low:.1f} to {high:.1f})  x{ratio:.2f}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--engine", choices=("torch", "jax", "tensorflow"), help="Keras on this engine")
    parser.add_argument("--only", nargs="*", default=(), metavar="KIND", help="such as Adam Lion; by default all")
    add_option(parser)
    arguments = parser.parse_args()
    if arguments.engine is not None:
        os.environ["KERAS_BACKEND"] = arguments.engine
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(headline())
    cases: dict[str, dict[str, Any]] = {}
    contests, steps = (torch_contests, 1) if arguments.engine is None else (keras_contests, STEPS)
    for contest in contests(arguments.only):
        cases |= race(contest, arguments.repeats, steps)
    keep("optimizers", cases, arguments.json, engine=arguments.engine)


if __name__ == "__main__":
    main()
