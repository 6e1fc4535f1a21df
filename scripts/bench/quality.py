"""Quality of pictures, as a table: do networks that took no part in drawing them see in them what was to be drawn?

    nice .venv/bin/python scripts/bench/quality.py [--out FOLDER] [--seeds 4] [--network lite0] [--row fourier:128]

One EfficientNet-Lite draws, by each row (a recipe and its steps) and seed; the other two judge (extra ``bench``). With
``--venvs FOLDER`` (see ``peers.py --install``) rows may be of other libraries, see ``quality_peers.py``; they draw with
lite0. Each cell of the table is kept in the folder as soon as it is finished, and not drawn again, so that the script
can be stopped at any time. By default few classes and channels are drawn; ``--classes 24`` draws all. For each cell:

- *named*: how many classes a judge puts first, of those that the project shows and of as many drawn by lot from the
  other 976;
  *probability*: the mean that it gives to the right class; both for the whole picture and for the mean over random
  crops, since recipes optimize crops and a judge that sees only those flatters them;
- *unlike photos*: the mean distance (1 - cosine) of a picture's features in a judge to those of the nearest photograph.
  The photographs are those of scikit-image and scikit-learn, a dozen scenes in crops: few, and not ImageNet's;
- *unlike seeds*: the mean distance of a class's pictures of several seeds from one another;
- *channels*: of the first channels of a middle block, how far a judge's best-correlated channel gets on our picture: 0
  is its mean over those photographs, 1 its largest there;
- *silent*: pictures that no gradient reached; processor *seconds* of one picture of a class.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from quality_peers import ROWS as PEERS
from report import add_option, headline, keep

import agnostic as ag
from agnostic.files import atomic_path, write_png
from agnostic.models.attached import card_of
from agnostic.models.preparing import resized
from agnostic.visualization.parameterization import Pyramid
from agnostic.visualization.recipes import Recipe
from agnostic.visualization.robustness import Crops

Array = npt.NDArray[np.float64]

NETWORKS = ("lite0", "lite1", "lite2")
SHOWN = (
    "goldfish", "hammerhead", "ostrich", "flamingo", "jellyfish", "Dungeness crab", "bee", "monarch",
    "Egyptian cat", "zebra", "African elephant", "giant panda", "balloon", "bubble", "castle", "beacon",
    "volcano", "espresso", "pizza", "strawberry", "pretzel", "typewriter keyboard", "soccer ball", "school bus",
)  # fmt: skip
LAYER, FEATURES = "blocks.3.2", "act2"
CROPS = Crops(count=8, mean=0.8, deviation=0.1, low=0.5, noise=0.0)
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina")


def recipes_of(size: int) -> dict[str, Recipe]:
    """The recipes of the table, all in one size."""
    return {
        "classic": ag.recipes.classic(preprocess=True, size=size),
        "jitter": ag.recipes.jitter(size=size),
        "fourier": ag.recipes.fourier(size=size),
        "maco": ag.recipes.maco(size=size),
        "pyramid": ag.recipes.fourier(name="pyramid", image=Pyramid(), size=size),
    }


def photographs() -> npt.NDArray[np.float32]:
    """(N, 224, 224, 3) in [0, 1]: the photographs that are installed, whole and in four quarters."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    found = [x for name in PHOTOS if (x := _photo(data, name)) is not None] + list(load_sample_images().images)
    parts = []
    for image in found:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        quarters = [image[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
        parts += [resized(x, 224, 224) for x in (image, *quarters)]
    return (np.stack(parts) / 255).astype(np.float32)


def _photo(data: Any, name: str) -> Any:
    try:  # some of scikit-image's have to be downloaded
        image = getattr(data, name)()
    except (OSError, ValueError, ModuleNotFoundError):
        return None
    return image if image.ndim == 3 and image.shape[2] == 3 else None


class Judge:
    """A network that looks at pictures."""

    def __init__(self, name: str) -> None:
        self.name, self.model = name, ag.load(f"efficientnet_{name}")
        self.photos = photographs()
        self.features_of_photos, self.block_of_photos = self.seen(self.photos)[1:]

    def seen(self, images: npt.NDArray[Any]) -> tuple[Array, Array, Array]:
        """Probabilities, features and the means of the middle block's channels: (images, ...) each."""
        found: list[list[Array]] = [[], [], []]
        for start in range(0, len(images), 16):
            inputs = ag.prepare(self.model, np.asarray(images[start : start + 16]))
            record = ag.capture(self.model, inputs, [LAYER, FEATURES, -1]).numpy()
            block, features, logits = (np.asarray(record[x], np.float64) for x in record)
            found[0].append(torch.softmax(torch.from_numpy(logits), 1).numpy())
            found[1].append(features.mean((2, 3)))
            found[2].append(block.mean((2, 3)))
        return np.concatenate(found[0]), np.concatenate(found[1]), np.concatenate(found[2])

    def cropped(self, images: npt.NDArray[np.float32], seed: int) -> Array:
        """(images, classes): probabilities, averaged over random crops."""
        rng, ops = np.random.default_rng((seed, 0x1D6E)), ag.backend_of(self.model).ops
        found = []
        for image in images:
            matrices = CROPS.matrices(rng, 1, image.shape[:2])[0]
            rows = ops.asarray(np.repeat(image[None], CROPS.count, 0))
            views = ops.numpy(ops.warp(rows, ops.asarray(matrices, "float32"), image.shape[:2]))
            found.append(self.seen(views.clip(0, 1))[0].mean(0))
        return np.stack(found)


def distances(a: Array, b: Array) -> Array:
    """(a, b): 1 - cosine of the rows of two tables."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return np.asarray(1 - a @ b.T)


def best_channels(drawing: Array, judging: Array, channels: Sequence[int]) -> list[int]:
    """The judge's channel that goes with each of the drawing network's most closely over photographs."""
    both = np.corrcoef(np.concatenate([drawing[:, channels].T, judging.T]))
    between = np.nan_to_num(both[: len(channels), len(channels) :], nan=-1.0)
    return [int(i) for i in between.argmax(1)]


def classes_of(count: int, names: Sequence[str]) -> tuple[list[int], list[int]]:
    """The numbers of the classes that the project shows, and of as many others drawn by lot."""
    shown = [names.index(name) for name in SHOWN][:: max(1, len(SHOWN) // count)][:count]
    others = [i for i in range(len(names)) if names[i] not in SHOWN]
    return shown, sorted(int(i) for i in np.random.default_rng(17).choice(others, len(shown), replace=False))


def by_recipe(model: Any, recipe: Recipe, seed: int, classes: Sequence[int], channels: Sequence[int]) -> dict[str, Any]:
    """Pictures of the classes by ours: images, processor seconds, how many objectives were silent; and of channels."""
    start = time.process_time()
    images = ag.visualize(model, ag.objectives.logit(list(classes)), recipe=recipe, seed=seed)
    found = {"images": np.asarray(images), "seconds": time.process_time() - start, "silent": images.remarks}
    if channels:
        drawn = ag.visualize(model, ag.objectives.channel(LAYER, list(channels)), recipe=recipe, seed=seed)
        found |= {"channels": np.asarray(drawn), "silent": [*images.remarks, *drawn.remarks]}
    return found


def by_peer(name: str, job: dict[str, Any], venvs: Path, path: Path) -> dict[str, Any]:
    """The same by another library, in a process of its environment."""
    python, file = venvs / PEERS[name][0] / "bin" / "python", path.with_suffix(".npz")
    command = [str(python), str(Path(__file__).parent / "quality_peers.py"), name, str(file), json.dumps(job)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "MPLBACKEND": "agg"}
    ended = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise RuntimeError(f"{name} does not run: {said[-1]}")
    with np.load(file) as arrays:
        found = {"images": arrays["images"], "seconds": float(arrays["seconds"]), "silent": []}
    file.unlink()
    return found


def judged(
    drawn: dict[str, Any], drawer: Judge, judges: Sequence[Judge], seed: int, classes: Sequence[int], shown: int,
    channels: Sequence[int], path: Path,
) -> None:  # fmt: skip
    """Judge the pictures of one cell of the table and keep what was found, and the pictures beside it."""
    pixels, right = drawn["images"], np.asarray(classes)
    write_png(path.with_suffix(".png"), ag.mosaic(pixels))
    found: dict[str, Any] = {"seconds": drawn["seconds"] / len(classes), "silent": sum(map(bool, drawn["silent"]))}
    rows, features = np.arange(len(right)), {}
    for judge in judges:
        whole, own, _ = judge.seen(pixels)
        features[judge.name] = own.tolist()
        for how, probabilities in (("whole", whole), ("crops", judge.cropped(pixels, seed))):
            named = probabilities.argmax(1) == right
            found[f"{judge.name} {how}"] = {
                "named": int(named[:shown].sum()), "others": int(named[shown:].sum()),
                "probability": float(probabilities[rows, right].mean()),
            }  # fmt: skip
        found[f"{judge.name} unlike photos"] = float(distances(own, judge.features_of_photos).min(1).mean())
        if "channels" in drawn:
            found[f"{judge.name} channels"] = reached(drawn["channels"], drawer, judge, channels)
    with atomic_path(path) as temporary:
        Path(temporary).write_text(json.dumps({"found": found, "features": features}))


def reached(images: npt.NDArray[Any], drawer: Judge, judge: Judge, channels: Sequence[int]) -> float:
    """How far the judge's partners of the channels get on pictures of them, in the mean."""
    partners = best_channels(drawer.block_of_photos, judge.block_of_photos, channels)
    ours, usual, best = judge.seen(images)[2], judge.block_of_photos.mean(0), judge.block_of_photos.max(0)
    pairs = enumerate(partners)
    return float(np.mean([(ours[i, p] - usual[p]) / (best[p] - usual[p]) for i, p in pairs]))


def table(cells: dict[tuple[str, str, int], list[dict[str, Any]]], judges: Sequence[str]) -> Iterator[str]:
    """A line for each network, recipe and number of steps: means over seeds, with the least and the most named."""
    for (network, recipe, steps), seeds in cells.items():
        found = [x["found"] for x in seeds]
        yield f"{network}, {recipe}, {steps} steps, {len(found)} seeds, {np.mean([x['seconds'] for x in found]):.1f} s"
        for judge in judges:
            if f"{judge} whole" not in found[0]:
                continue
            parts = []
            for how in ("whole", "crops"):
                own = [x[f"{judge} {how}"] for x in found]
                named = [x["named"] for x in own]
                parts.append(
                    f"{how}: {np.mean(named):.1f} ({min(named)} to {max(named)}) and others "
                    f"{np.mean([x['others'] for x in own]):.1f}, p {np.mean([x['probability'] for x in own]):.2f}"
                )
            features = [np.array(x["features"][judge]) for x in seeds]
            apart = [np.diag(distances(a, b)).mean() for a, b in itertools.combinations(features, 2)]
            parts.append(f"unlike photos {np.mean([x[f'{judge} unlike photos'] for x in found]):.2f}")
            parts.append(f"unlike seeds {np.mean(apart) if apart else float('nan'):.2f}")
            if all(f"{judge} channels" in x for x in found):
                parts.append(f"channels {np.mean([x[f'{judge} channels'] for x in found]):.2f}")
            yield f"  judge {judge}: {'; '.join(parts)}"
        if silent := sum(x["silent"] for x in found):
            yield f"  silent: {silent}"


def row(text: str) -> tuple[str, int]:
    """``fourier:128``: a recipe or library, and its steps; a library's row that keeps its own number has none."""
    name, _, text = text.partition(":")
    if name not in recipes_of(160) and name not in PEERS:
        raise argparse.ArgumentTypeError(f"no recipe or library {name!r}")
    own = PEERS[name][1] if name in PEERS else None
    if own is None and not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{name!r} needs its steps, as in '{name}:128'")
    if own is not None and text:
        raise argparse.ArgumentTypeError(f"{name!r} keeps its own {own} steps: leave out ':{text}'")
    return name, int(own or text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("pictures/quality"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--network", action="append", choices=NETWORKS, help="that draws; lite0 by default")
    parser.add_argument("--row", action="append", type=row, help="recipe or library, and steps; may be repeated")
    parser.add_argument("--venvs", type=Path, help="folder with an environment for each library")
    parser.add_argument("--classes", type=int, default=4, help="of the project's 24, and as many others")
    parser.add_argument("--channels", type=int, default=4, help="of the layer whose channels are drawn")
    parser.add_argument("--size", type=int, default=160)
    add_option(parser)
    given = parser.parse_args()
    peers = [name for name, _ in given.row or () if name in PEERS]
    if peers and (given.venvs is None or given.network not in (None, ["lite0"])):
        parser.error(f"the row {peers[0]!r} needs --venvs, and is drawn with lite0: leave out --network")
    print(f"{headline()}; {torch.get_num_threads()} threads", flush=True)
    judges = {name: Judge(name) for name in NETWORKS}
    card = card_of(judges["lite0"].model)
    assert card is not None
    shown, others = classes_of(given.classes, card.class_names or ())
    cells: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    recipes, channels = recipes_of(given.size), range(given.channels)
    rows = given.row or [(name, steps) for name in recipes for steps in (32, 128)]
    # Seeds outermost: a table that was stopped is of fewer seeds, not of fewer rows.
    for seed, network, (name, steps) in itertools.product(range(given.seeds), given.network or ["lite0"], rows):
        path = given.out / f"{network}-{name}-{steps}-{given.size}-{len(shown)}-{given.channels}-{seed}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            took_no_part = [x for other, x in judges.items() if other != network]
            classes = [*shown, *others]
            if name in PEERS:
                job = {"classes": classes, "steps": steps, "size": given.size, "seed": seed}
                drawn = by_peer(name, job, given.venvs, path)
            else:
                recipe = ag.recipes.get(recipes[name], steps=steps)
                drawn = by_recipe(judges[network].model, recipe, seed, classes, channels)
            judged(drawn, judges[network], took_no_part, seed, classes, len(shown), channels, path)
        cells.setdefault((network, name, steps), []).append(json.loads(path.read_text()))
        row_so_far = {(network, name, steps): cells[network, name, steps]}
        print("\n".join(table(row_so_far, NETWORKS)), flush=True)
    keep("quality", _cases(cells), given.json, seeds=given.seeds)


def _cases(cells: dict[tuple[str, str, int], list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Each number of the table as a case of the record: its mean over judges and seeds."""
    cases = {}
    for (network, recipe, steps), seeds in cells.items():
        found = [x["found"] for x in seeds]
        for how, what in itertools.product(("whole", "crops"), ("named", "others", "probability")):
            values = [own[what] for x in found for key, own in x.items() if key.endswith(how)]
            cases[f"{network}, {recipe}, {steps} steps, {how}: {what}"] = {
                "median": float(np.mean(values)), "unit": "more is better"
            }  # fmt: skip
        cases[f"{network}, {recipe}, {steps} steps: time"] = {
            "median": float(np.mean([x["seconds"] for x in found])), "unit": "s"
        }  # fmt: skip
    return cases


if __name__ == "__main__":
    main()
