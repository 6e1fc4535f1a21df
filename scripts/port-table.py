"""Port models, run what was written, and write the table of docs/port.md.

    scripts/port-table.py torchvision:resnet18@64 timm:convnext_atto@64 --engine jax
    scripts/port-table.py --family segmentation --engine torch

A row stands for one model on one engine: the verdict, the error of its outputs and the floor, the transposes that
remain, the lines of the written source, and what of the inputs' sizes is free. Rows of other models are kept.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]
PAGE = ROOT / "docs" / "port.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
HEAD = "| model | engine | verdict | error | floor | transposes | lines | free |\n" + "| --- " * 8 + "|"

TORCHVISION = [
    "alexnet@96",
    "convnext_tiny@64",
    "densenet121@64",
    "efficientnet_b0@64",
    "efficientnet_v2_s@64",
    "googlenet@96",
    "inception_v3@128",
    "maxvit_t@224",
    "mnasnet0_5@64",
    "mobilenet_v2@64",
    "mobilenet_v3_small@64",
    "regnet_y_400mf@64",
    "resnet18@64",
    "resnet50@64",
    "resnext50_32x4d@64",
    "shufflenet_v2_x0_5@64",
    "squeezenet1_0@64",
    "swin_t@224",
    "swin_v2_t@256",
    "vgg11_bn@64",
    "vit_b_16@224",
    "wide_resnet50_2@64",
]


SEGMENTATION = ["fcn_resnet50@64", "deeplabv3_mobilenet_v3_large@64", "lraspp_mobilenet_v3_large@64"]
VIDEO = ["r3d_18@32", "mc3_18@32", "r2plus1d_18@32", "s3d@224", "mvit_v2_s@224", "swin3d_t@224"]
FRAMES = {"r3d_18": 4, "mc3_18": 4, "r2plus1d_18": 4}
FLOW = ["raft_small@128"]
BACKBONES = ["resnet18_fpn@64", "mobilenet_v3_large_fpn@64"]
TRANSFORMERS = ["bert", "gpt2", "vit", "clip"]

FAMILIES = {
    "torchvision": TORCHVISION, "segmentation": SEGMENTATION, "video": VIDEO, "flow": FLOW, "backbones": BACKBONES,
    "transformers": TRANSFORMERS, "timm": [],
}  # fmt: skip

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
"""What makes a transformer small."""


def made(spec: str) -> tuple[Any, Any]:
    """A model with random weights and statistics of its own, and inputs for it."""
    import torch

    name, _, size = spec.partition("@")
    library, _, name = name.partition(":")
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    side = int(size or 224)
    images = torch.randn(2, 3, side, side, generator=generator)
    if library == "torchvision":
        model, inputs = _of_torchvision(name, images)
    elif library == "transformers":
        model, inputs = _of_transformers(name)
    else:
        import timm

        model, inputs = timm.create_model(name, pretrained=False), images
    with torch.no_grad():
        for key, tensor in (*model.named_parameters(), *model.named_buffers()):
            if key.endswith("running_mean"):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            elif key.endswith("running_var"):
                tensor.copy_(0.8 + 0.4 * torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point() and tensor.numel() and not tensor.any():
                # Heads and branches that begin with zeros would agree whatever is wrong before them.
                tensor.copy_(0.02 * torch.randn(tensor.shape, generator=generator))
    return model.eval(), inputs


def _of_torchvision(name: str, images: Any) -> tuple[Any, Any]:
    import torchvision
    from torchvision.models.detection import backbone_utils

    if name == "resnet18_fpn":
        return backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None), images
    if name == "mobilenet_v3_large_fpn":
        backbone = backbone_utils.mobilenet_backbone(backbone_name="mobilenet_v3_large", weights=None, fpn=True)
        return backbone, images
    extra: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        extra = {"init_weights": True, "aux_logits": False}
    elif f"{name}@64" in SEGMENTATION:
        extra = {"weights_backbone": None}
    model = torchvision.models.get_model(name, weights=None, **extra)
    if any(spec.startswith(f"{name}@") for spec in VIDEO):
        frames = FRAMES.get(name, 16)
        return model, images[:, :, None].repeat(1, 1, frames, 1, 1) * images.new_ones(frames, 1, 1).cumsum(0).cos()
    return model, (images, images.flip(0)) if f"{name}@128" in FLOW else images


def _of_transformers(name: str) -> tuple[Any, Any]:
    import torch
    import transformers as library

    ids = torch.tensor([[5, 6, 7, 8, 9, 1], [4, 3, 2, 9, 0, 0]])
    text = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    seen = {**SMALL, "image_size": 16, "patch_size": 4}
    read = {**SMALL, "vocab_size": 20, "max_position_embeddings": 32}
    if name == "bert":
        return library.BertModel(library.BertConfig(**read)), text
    if name == "gpt2":
        config = library.GPT2Config(vocab_size=20, n_positions=32, n_embd=16, n_layer=2, n_head=2, use_cache=False)
        return library.GPT2LMHeadModel(config), text
    if name == "vit":
        return library.ViTForImageClassification(library.ViTConfig(**seen)), images
    words = {**read, "eos_token_id": 9, "bos_token_id": 1, "pad_token_id": 0}
    config = library.CLIPConfig(text_config=words, vision_config=seen, projection_dim=8)
    return library.CLIPModel(config), {**text, "pixel_values": images}


def rows(specs: list[str], engine: str) -> dict[str, str]:
    """A row for each model."""
    from agnostic.contracts.writer import WRITER
    from agnostic.errors import AgnosticError
    from agnostic.port.check import judged, run_elsewhere, trial
    from agnostic.port.verb import cases, drafted_for
    from agnostic.registry import backend_of, get_backend

    writer = get_backend("keras")[WRITER]
    found: dict[str, str] = {}
    for spec in specs:
        name = spec.partition("@")[0]
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="port-table-") as folder:
            try:
                model, inputs = made(spec)
                backend = backend_of(model)
                written = drafted_for(backend, model, inputs, writer.dialect())
                path = Path(folder) / "ported.py"
                path.write_text(written.draft.written.text)
                weights = writer.write_weights(written.arrays, path.parent, "ported")
                given = cases(backend, inputs, written.variation)
                tried = trial(backend, model, written.draft, given, "keras", path, weights)
                result = judged(tried, run_elsewhere([tried.job], {"KERAS_BACKEND": engine})[0])
            except AgnosticError as error:
                found[f"{name} {engine}"] = f"| {name} | {engine} | {_cell(str(error))} | | | | | |"
                print(found[f"{name} {engine}"], flush=True)
                continue
        outputs = [row for row in result if not row.name]
        same, layers = all(row.is_same for row in outputs), [row for row in result if row.name]
        verdict = f"{'same' if same else 'differs'}, {sum(row.is_same for row in layers)} of {len(layers)} layers"
        error, floor = max(row.error for row in outputs), max(row.floor for row in outputs)
        lines = written.draft.written.text.count("\n")
        free = written.variation.name if written.variation else "nothing"
        found[f"{name} {engine}"] = (
            f"| {name} | {engine} | {verdict} | {error:.1e} | {floor:.1e} | {len(written.draft.laid.moves)} | {lines} "
            f"| {free} |"
        )
        print(found[f"{name} {engine}"], f"{time.perf_counter() - start:.0f} s", flush=True)
    return found


def _cell(message: str) -> str:
    return re.sub(r"[|\n]+", " ", message)[:160]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="such as torchvision:resnet18@64")
    parser.add_argument("--family", choices=sorted(FAMILIES), help="one model of each of its families")
    parser.add_argument("--engine", default="jax", choices=["jax", "torch", "tensorflow"])
    given = parser.parse_args()
    specs = list(given.models)
    if given.family == "timm":
        specs += [f"timm:{name}@224" for name in _smallest()]
    elif given.family:
        library = "transformers" if given.family == "transformers" else "torchvision"
        specs += [f"{library}:{name}" for name in FAMILIES[given.family]]
    before = PAGE.read_text()
    start, end = before.index(BEGIN) + len(BEGIN), before.index(END)
    table = {
        " ".join(cell.strip() for cell in line.split("|")[1:3]): line
        for line in before[start:end].strip().splitlines()[2:]
    }
    table |= rows(specs, given.engine)
    text = "\n".join([HEAD, *(table[key] for key in sorted(table))])
    PAGE.write_text(f"{before[:start]}\n{text}\n{before[end:]}")


def _smallest() -> list[str]:
    """A small model of each of timm's architecture files."""
    import timm
    import torch

    chosen: dict[str, tuple[int, str]] = {}
    for name in timm.list_models():
        file = timm.model_entrypoint(name).__module__
        with torch.device("meta"):
            try:
                count = sum(p.numel() for p in timm.create_model(name).parameters())
            except (RuntimeError, NotImplementedError, TypeError, ValueError):
                continue
        if file not in chosen or count < chosen[file][0]:
            chosen[file] = (count, name)
    return sorted(name for count, name in chosen.values() if count < 40_000_000)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
