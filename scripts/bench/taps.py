"""What looking costs: taps on ResNet-18, against the bare forward pass and against peers.

    .venv/bin/python scripts/bench/taps.py

Batch of 8 at 224 x 224, float32, random weights, inference. The same layers for everyone: the four stages; every module
without children; the second stage alone, after which a run may end. Rounds of all contenders are interleaved, in one
process; medians and spread are printed in milliseconds, with the ratio to the bare forward pass of the same rounds.

Peers: torchvision's feature extractor, and nnsight and torchlens where they are installed. torchlens wraps torch's
functions for good at its first call, so its rounds come after those of all others, with bare rounds of their own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torchvision
from report import add_option, headline, keep, spread
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import agnostic as ag

Times = dict[str, list[float]]


def contenders(model: nn.Module, x: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """All but torchlens, by what they do."""
    stages = ["layer1", "layer2", "layer3", "layer4"]
    leaves = [layer.name for layer in ag.layers(model, x) if not list(model.get_submodule(layer.name).children())]
    # The extractor names a module that runs twice once for each call.
    nodes = torchvision.models.feature_extraction.get_graph_node_names(model)[1]
    of_leaves = [node for node in nodes if node.rsplit("_", 1)[0] in leaves or node in leaves]
    found: dict[str, Callable[[], Any]] = {"bare": lambda: model(x)}
    for what, names, nodes in (("stages", stages, stages), (f"{len(leaves)} leaves", leaves, of_leaves)):
        extractor = create_feature_extractor(model, nodes).eval()
        found |= {
            f"{what}: capture": lambda names=names: ag.capture(model, x, names),
            f"{what}: watch": lambda names=names: watched(model, x, names),
            f"{what}: submodel": _once(lambda part: part(x), ag.submodel(model, stages)) if names == stages else None,
            f"{what}: torchvision extractor": lambda extractor=extractor: extractor(x),
        }
    second = create_feature_extractor(model, ["layer2"]).eval()
    found |= {
        "layer2: capture": lambda: ag.capture(model, x, "layer2"),
        "layer2: submodel": _once(lambda part: part(x), ag.submodel(model, "layer2")),
        "layer2: torchvision extractor": lambda: second(x),
    }
    if importlib.util.find_spec("nnsight"):
        import nnsight

        sighted = nnsight.NNsight(model)

        def with_nnsight() -> list[torch.Tensor]:
            with sighted.trace(x):
                a = sighted.layer1.output.save()
                b = sighted.layer2.output.save()
                c = sighted.layer3.output.save()
                d = sighted.layer4.output.save()
            return [a, b, c, d]

        found["stages: nnsight"] = with_nnsight
    return {name: function for name, function in found.items() if function is not None}


def _once(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)


def watched(model: nn.Module, x: torch.Tensor, names: list[str]) -> Any:
    """Live hooks around one forward pass."""
    with ag.watch(model, names) as record:
        model(x)
    return record


def measure(functions: Mapping[str, Callable[[], Any]], rounds: int) -> Times:
    """Milliseconds of each call, interleaved."""
    times: Times = {name: [] for name in functions}
    for function in functions.values():
        function()  # warm up: ours learns the model, others trace it
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def show(times: Times) -> None:
    """A line a contender."""
    bare = statistics.median(times["bare"])
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"  {name:34s} {middle:8.2f} ms ({min(values):.2f}-{max(values):.2f})  x{middle / bare:.2f}", flush=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    add_option(parser)
    arguments = parser.parse_args()

    print(f"{headline()}; {torch.get_num_threads()} threads")
    model = ag.load("torchvision:resnet18", weights="random")
    x = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    results = {}
    print("ResNet-18, 8 x 3 x 224 x 224")
    results["batch of 8"] = measure(contenders(model, x), arguments.rounds)
    show(results["batch of 8"])

    # Here the network itself costs next to nothing, and what is left is the price of a call.
    print("ResNet-18, 1 x 3 x 32 x 32")
    results["one small image"] = measure(contenders(model, x[:1, :, :32, :32]), 4 * arguments.rounds)
    show(results["one small image"])

    if importlib.util.find_spec("torchlens"):
        import torchlens

        print("ResNet-18, 8 x 3 x 224 x 224, after torchlens has wrapped torch")
        stages = ["layer1", "layer2", "layer3", "layer4"]
        functions = {"bare": lambda: model(x), "stages: torchlens": lambda: torchlens.extract(model, x, stages)}
        results["torchlens"] = measure(functions, max(3, arguments.rounds // 3))
        show(results["torchlens"])

    cases = {
        f"{title}: {name}": spread(values, "ms", over=statistics.median(times["bare"]))
        for title, times in results.items()
        for name, values in times.items()
    }
    keep("taps", cases, arguments.json)


if __name__ == "__main__":
    main()
