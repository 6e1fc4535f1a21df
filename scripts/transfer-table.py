"""Measure, for torchvision and keras.applications, which networks of one name are one network; write docs/transfer.md.

    scripts/transfer-table.py                      measures all but the largest, and writes the table
    scripts/transfer-table.py resnet50 vgg16       measures these again
    scripts/transfer-table.py --twins              measures Keras twins against torchvision's networks, on one engine
    scripts/transfer-table.py --table              only writes the tables from scripts/transfer-table.json

Random weights and random batch-norm statistics, so that every parameter counts, go from torchvision to Keras (on the
engine that KERAS_BACKEND names, else torch); both run on the same random image. No weights are downloaded.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.modules["triton"] = None  # type: ignore[assignment] - which PyTorch imports here and there, and tensorflow abort
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

from agnostic.files import atomic_path  # noqa: E402

PAIRS = {
    "vgg16": "VGG16", "vgg19": "VGG19", "resnet50": "ResNet50", "resnet101": "ResNet101", "resnet152": "ResNet152",
    "mobilenet_v2": "MobileNetV2", "mobilenet_v3_small": "MobileNetV3Small", "mobilenet_v3_large": "MobileNetV3Large",
    "densenet121": "DenseNet121", "densenet169": "DenseNet169", "densenet201": "DenseNet201",
    **{f"efficientnet_b{n}": f"EfficientNetB{n}" for n in range(8)},
    "efficientnet_v2_s": "EfficientNetV2S", "efficientnet_v2_m": "EfficientNetV2M",
    "efficientnet_v2_l": "EfficientNetV2L", "convnext_tiny": "ConvNeXtTiny", "convnext_small": "ConvNeXtSmall",
    "convnext_base": "ConvNeXtBase", "convnext_large": "ConvNeXtLarge", "inception_v3": "InceptionV3",
}  # fmt: skip
"""Keras' name by torchvision's, of all that both have."""

LEFT_OUT = {
    "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_m", "efficientnet_v2_l", "convnext_base", "convnext_large",
}  # fmt: skip
"""Larger members of families that smaller ones stand for; measured when they are named."""

TWINS = (
    "vgg16", "resnet18", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_16",
)  # fmt: skip
ENGINES = ("torch", "jax", "tensorflow")

RESULTS, PAGE = Path(__file__).with_suffix(".json"), ROOT / "docs" / "transfer.md"
TWINS_START, TWINS_END = "<!-- twins: scripts/transfer-table.py --twins -->", "<!-- end of the twins -->"
START, END = "<!-- table: scripts/transfer-table.py -->", "<!-- end of the table -->"


def randomize(model: Any) -> Any:
    """Every parameter and statistic from a seed: fresh ones are zeros and ones, which hide where they are used."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for name, x in [*model.named_parameters(), *model.named_buffers()]:
        if not x.is_floating_point():
            continue
        if name.endswith(("running_var", "layer_scale")) or (x.ndim == 1 and name.endswith("weight")):
            x.data.copy_(torch.rand(x.shape, generator=generator) + 0.5)
        elif x.ndim == 1 or not x.any():  # such as a vision transformer's head, which begins as zeros
            x.data.copy_(torch.randn(x.shape, generator=generator) * 0.1)
    return model.eval()


def measure(name: str) -> dict[str, Any]:
    """One pair: its report, summed up."""
    import keras
    import numpy as np

    import agnostic as ag

    size = 224 if name.startswith("vgg") else 96
    source = randomize(ag.load(f"torchvision:{name}", weights="random"))
    make = getattr(keras.applications, PAIRS[name])
    target = make(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    image = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    start = time.perf_counter()
    found: dict[str, Any] = {"size": size, "engine": keras.config.backend()}
    try:
        report = ag.transfer(source, target, inputs=image)
    except ag.AgnosticError as error:
        return {**found, "failed": str(error), "seconds": time.perf_counter() - start}
    notes = {note for row in report.rows for note in row.notes}
    return {
        **found, "seconds": time.perf_counter() - start, "layers": len(report.rows), "error": report.error,
        "floor": report.floor, "verified": report.verified, "explained": report.explained,
        "differences": list(report.differences), "notes": [*sorted(notes), *report.notes],
    }  # fmt: skip


def measure_twin(name: str) -> dict[str, Any]:
    """A twin on this engine: the error of the logits, and how many of its floors that is."""
    import numpy as np

    import agnostic as ag

    size = 224 if name in ("vgg16", "vit_b_16") else 96
    source = randomize(ag.load(f"torchvision:{name}", weights="random"))
    target = ag.load(name, backend="keras", weights="random")
    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    report = ag.transfer(source, target, inputs=images)
    worst = report.error / report.floor
    return {
        "size": size, "layers": len(report.rows), "error": report.error, "floor": report.floor, "worst": worst,
        "verified": report.verified,
    }  # fmt: skip


def twins_table(results: dict[str, Any]) -> str:
    """In Markdown, with the worst layer of all."""
    found = results.get("twins", {})
    lines = [
        "| network | layers | torch float32 | Keras on torch | on jax | on tensorflow |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in TWINS:
        engines = found.get(name, {})
        errors = [f"{engines[e]['error']:.1e}" if e in engines else "not measured" for e in ENGINES]
        some = next(iter(engines.values()), {"layers": "", "floor": float("nan")})
        lines.append(f"| {name} | {some['layers']} | {some['floor']:.1e} | {' | '.join(errors)} |")
    worst = [(x["worst"], name, engine) for name, engines in found.items() for engine, x in engines.items()]
    if worst:
        ratio, name, engine = max(worst)
        lines.append(f"\nThe worst was {ratio:.1f} times its floor: in {name}, on {engine}.")
    return "\n".join(lines)


def table(results: dict[str, Any]) -> str:
    """In Markdown, of what was measured."""
    lines = [
        "| torchvision | keras.applications | layers | computes the same | where they differ | error | float32 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, other in PAIRS.items():
        found = results.get(name)
        if found is None:
            continue
        if "failed" in found:
            lines.append(f"| {name} | {other} | | no | {found['failed']} | | |")
            continue
        equal = "yes" if found["verified"] else "without these differences" if found["explained"] else "no"
        numbers = f"{found['error']:.1e} | {found['floor']:.1e}"
        lines.append(f"| {name} | {other} | {found['layers']} | {equal} | {where(found)} | {numbers} |")
    return "\n".join(lines)


DONE = {
    "prepares its inputs": "Keras scales its inputs inside",
    "flatten order": "the flatten order, which transfer takes care of",
    "no scale": "Keras' batch norms have no gamma, which goes into the variance",
    "without effect": "Keras has biases more, which become zeros",
}
"""What a note says, in short, by words of it."""


def where(found: dict[str, Any]) -> str:
    """What differs, for people: the report's sentences, each once, and what transfer did beside moving numbers."""
    said: Counter[str] = Counter()
    for difference in found["differences"]:
        count = re.search(r"The same in (\d+) ", difference)
        text = re.sub(r"The same in \d+ \w+(: [^.]*)?\.", "", difference)
        for sentence in re.split(r"At (?:layer '[^']*'|the output|[\w./-]+:\d+)(?: \([^)]*:\d+\))? ", text)[1:]:
            said[re.sub(r" at [\w./-]+:\d+|\(\S*:\d+\) ", "", sentence).strip(" .")] += int(count[1]) if count else 1
    lines = [text + (f" in {count} places" if count > 1 else "") for text, count in said.items()]
    return "; ".join([*lines, *(short for words, short in DONE.items() if any(words in x for x in found["notes"]))])


def write(results: dict[str, Any]) -> None:
    """Both tables into the page; that of keras.applications once each of its rows was measured as the others are."""
    tables = [(TWINS_START, TWINS_END, twins_table(results))]
    if all({"failed", "differences"} & results.get(name, {}).keys() for name in PAIRS if name not in LEFT_OUT):
        now = {name: x for name, x in results.items() if name == "twins" or {"failed", "differences"} & x.keys()}
        tables.append((START, END, table(now)))
    text = PAGE.read_text()
    for start, end, lines in tables:
        before, after = text.partition(start)[0], text.partition(end)[2]
        text = f"{before}{start}\n{lines}\n{end}{after}"
    with atomic_path(PAGE) as temporary:
        temporary.write_text(text)


def kept(name: str, found: dict[str, Any], results: dict[str, Any]) -> None:
    """Show a result, and write all."""
    print(name, json.dumps(found), flush=True)
    with atomic_path(RESULTS) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    gc.collect()


def main(arguments: list[str]) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    wanted = [x for x in arguments if not x.startswith("--")]
    if "--table" in arguments:
        pass
    elif "--twins" in arguments:
        engine = os.environ["KERAS_BACKEND"]
        for name in wanted or TWINS:
            results.setdefault("twins", {}).setdefault(name, {})[engine] = found = measure_twin(name)
            kept(name, found, results)
    else:
        for name in wanted or [name for name in PAIRS if name not in LEFT_OUT]:
            results[name] = measure(name)
            kept(name, results[name], results)
    if PAGE.exists():
        write(results)


if __name__ == "__main__":
    main(sys.argv[1:])
