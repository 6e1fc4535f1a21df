"""Quality of class pictures: does a network that took no part in drawing them name the class?

    .venv/bin/python scripts/bench/quality.py [--out FOLDER] [--seed N]

EfficientNet-Lite0 draws 24 classes by each recipe; EfficientNet-Lite2 judges (extra ``bench``). It sees every picture
through random crops, from a seed that drew nothing else, and names the class whose probability, averaged over the
crops, is highest. Printed: how many of the 24 it names, the mean probability it gives to the right class, and the time.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from report import add_option, headline, keep

import agnostic as ag
from agnostic.files import write_png
from agnostic.models.attached import card_of
from agnostic.visualization.robustness import Crops

CLASSES = (
    "goldfish", "hammerhead", "ostrich", "flamingo", "jellyfish", "Dungeness crab", "bee", "monarch",
    "Egyptian cat", "zebra", "African elephant", "giant panda", "balloon", "bubble", "castle", "beacon",
    "volcano", "espresso", "pizza", "strawberry", "pretzel", "typewriter keyboard", "soccer ball", "school bus",
)  # fmt: skip
RECIPES = {
    "classic": ag.recipes.classic(preprocess=True, size=160),
    "classic, 128 steps": ag.recipes.classic(preprocess=True, size=160, steps=128),
    "fourier, jitter": ag.recipes.jitter(),
    "fourier, crops (default)": ag.recipes.fourier(),
    "maco": ag.recipes.maco(size=160, steps=128),
}
CROPS = Crops(count=16, mean=0.8, deviation=0.1, low=0.5, noise=0.0)


def judged(judge: torch.nn.Module, images: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float64]:
    """(images, classes): the judge's mean probabilities under random crops."""
    card = card_of(judge)
    assert card is not None
    assert card.preprocessing is not None
    ops, (height, width) = ag.backend_of(judge).ops, card.size
    rng = np.random.default_rng((seed, 0x1D6E))
    probabilities = []
    with torch.no_grad():
        for image in images:
            matrices = CROPS.matrices(rng, 1, image.shape[:2])[0]
            # The crops come at the judge's own size: the map is scaled so that its output pixels are the judge's.
            scale = np.array(image.shape[:2]) / (height, width)
            matrices[..., 2] += 0.5 * matrices[..., [0, 1], [0, 1]] * (scale - 1)
            matrices[..., :2] *= scale
            rows = ops.asarray(np.repeat(image[None], CROPS.count, 0))
            views = ops.warp(rows, ops.asarray(matrices, "float32"), (height, width))
            inputs = card.preprocessing.apply(ops, views).permute(0, 3, 1, 2)
            probabilities.append(judge(inputs).softmax(1).mean(0).double().numpy())
    return np.stack(probabilities)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("pictures/quality"))
    add_option(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", action="append", help="part of a recipe's name; may be given several times")
    arguments = parser.parse_args()

    model, judge = ag.load("efficientnet_lite0"), ag.load("efficientnet_lite2")
    objective = ag.objectives.logit(CLASSES)
    card = card_of(judge)
    assert card is not None
    assert card.class_names is not None
    right = np.array([card.class_names.index(name) for name in CLASSES])
    print(f"{headline()}; {torch.get_num_threads()} threads, seed {arguments.seed}")
    cases = {}
    for name, recipe in RECIPES.items():
        if arguments.recipe and not any(part in name for part in arguments.recipe):
            continue
        start = time.perf_counter()
        images = ag.visualize(model, objective, recipe=recipe, seed=arguments.seed)
        seconds = time.perf_counter() - start
        probabilities = judged(judge, np.asarray(images), arguments.seed)
        named = probabilities.argmax(1) == right
        certainty = probabilities[np.arange(len(right)), right].mean()
        missed = [
            f"{c} (seen as {card.class_names[p]})"
            for c, p, ok in zip(CLASSES, probabilities.argmax(1), named, strict=True)
            if not ok
        ]
        print(
            f"{name:26s} {named.sum():2d} of {len(CLASSES)}   mean probability {certainty:.2f}   {seconds:5.0f} s"
            + (f"   missed: {', '.join(missed)}" if 0 < len(missed) <= 8 else ""),
            flush=True,
        )
        path = arguments.out / f"{name.replace(', ', '-').replace(' ', '-').replace('(', '').replace(')', '')}.png"
        write_png(path, ag.mosaic(images), {"agnostic": repr(dataclasses.asdict(recipe))})
        cases[f"{name}: named of {len(CLASSES)}"] = {"median": int(named.sum()), "unit": "classes, more is better"}
        cases[f"{name}: probability"] = {"median": float(certainty), "unit": "more is better"}
        cases[f"{name}: time"] = {"median": seconds, "unit": "s"}
    keep("quality", cases, arguments.json, seed=arguments.seed)


if __name__ == "__main__":
    main()
