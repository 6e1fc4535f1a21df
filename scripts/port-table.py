"""Port models, run what was written, and write the table of docs/port.md.

    scripts/port-table.py torchvision:resnet18@64 timm:convnext_atto@64 --engine jax
    scripts/port-table.py --family segmentation --engine torch

A row stands for one model on one engine: the verdict, the error of its outputs and the floor, the transposes that
remain, the lines of the written source, and what of the inputs' sizes is free. Rows of other models are kept.
"""

from __future__ import annotations

import argparse
import ast
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

TIMM = [
    "beit_base_patch16_224@224?embed_dim=48&depth=2&num_heads=3",
    "cait_xxs24_224@224?depth=2",
    "coat_tiny@224",
    "convit_tiny@224?depth=4&local_up_to_layer=2",
    "convmixer_768_32@64",
    "cpubone_nano@64",
    "crossvit_tiny_240@240?depth=((1,2,0),(1,2,0),(1,2,0))",
    "cs3darknet_focus_s@64",
    "csatv2@64",
    "cspnext_tiny@64",
    "davit_tiny@64",
    "deepseek_vit_412m@56?embed_dim=64&depth=2&num_heads=2&img_size=56",
    "deit_tiny_distilled_patch16_224@224?embed_dim=48&depth=2&num_heads=3",
    "densenet121@64",
    "dla34@64",
    "dpn48b@64",
    "eca_botnext26ts_256@256",
    "edgenext_xx_small@64",
    "efficientformer_l1@224",
    "efficientformerv2_s0@224",
    "efficientvim_m1@64",
    "efficientvit_b0@64",
    "efficientvit_m0@224",
    "ese_vovnet19b_slim_dw@64",
    "fasternet_t0@64",
    "fastvit_t8@64",
    "focalnet_tiny_srf@64",
    "gcvit_xxtiny@224",
    "gemma4_vit_167m@64?embed_dim=64&depth=2&num_heads=2",
    "ghostnet_050@64",
    "gmlp_ti16_224@224",
    "hardcorenas_b@64",
    "hgnetv2_b0@64",
    "hiera_tiny_224@224?stages=(1,2,2,1)",
    "hrnet_w18_small@64",
    "iformer_t@64",
    "inception_next_atto@64",
    "inception_resnet_v2@96",
    "inception_v3@96",
    "inception_v4@96",
    "lcnetv2_small@64",
    "legacy_seresnet18@64",
    "legacy_xception@64",
    "levit_128s@224",
    "lowformer_b0@64",
    "mobilenetv3_small_050@64",
    "mobilenetv5_base@64",
    "mobilevit_xxs@64",
    "mvitv2_tiny@224",
    "naflexvit_base_patch16_gap@64?embed_dim=48&depth=2&num_heads=3",
    "nasnetalarge@96",
    "nest_tiny@224",
    "nextvit_small@64",
    "pit_ti_224@224",
    "pnasnet5large@96",
    "poolformer_s12@64",
    "pvt_v2_b0@64",
    "qwen3_vit_88m@64?embed_dim=64&depth=2&num_heads=2",
    "rdnet_tiny@64",
    "regnetx_002@64",
    "repghostnet_050@64",
    "repvit_m1@64",
    "res2next50@64",
    "resnest14d@64",
    "resnetv2_18@64",
    "rexnet_100@64",
    "sam2_hiera_tiny@64",
    "samvit_base_patch16_224@224?embed_dim=48&depth=3&num_heads=3&global_attn_indexes=(1,)",
    "selecsls42@64",
    "sequencer2d_s@224?layers=(2,1,2,1)",
    "shvit_s1@64",
    "skresnet18@64",
    "starnet_s050@64",
    "swiftformer_xs@224",
    "swin_tiny_patch4_window7_224@224?depths=(2,2,2,2)",
    "swinv2_cr_tiny_224@224?depths=(2,2,2,2)",
    "swinv2_tiny_window8_256@256?depths=(2,2,2,2)",
    "test_byobnet@64",
    "test_coatnet@160",
    "test_convnext@64",
    "test_efficientnet@64",
    "test_mambaout@64",
    "test_nfnet@64",
    "test_resnet@64",
    "test_vit@160",
    "test_vit_relpos@160",
    "tiny_vit_5m_224@64",
    "tnt_s_legacy_patch16_224@224?depth=2",
    "tresnet_m@64",
    "twins_svt_small@224?depths=(2,2,2,2)",
    "vgg11@64",
    "visformer_tiny@224",
    "vit_tiny_patch16_dinov3_qkvb@256?depth=2",
    "vit_tiny_r_s16_p8_224@224?depth=2",
    "vitamin_small_224@224",
    "volo_d1_224@224",
    "xception41p@64",
    "xcit_nano_12_p8_224@224",
]
"""A small model of each of timm's files of architectures; of those that have only large ones, one made smaller."""

FAMILIES = {
    "torchvision": TORCHVISION, "segmentation": SEGMENTATION, "video": VIDEO, "flow": FLOW, "backbones": BACKBONES,
    "transformers": TRANSFORMERS, "timm": TIMM,
}  # fmt: skip

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
"""What makes a transformer small."""


def parsed(spec: str) -> tuple[str, str, int, dict[str, Any]]:
    """Library, model, side of its images, and arguments that make it, of ``timm:beit_base@224?depth=2&num_heads=3``."""
    name, _, rest = spec.partition("@")
    side, _, options = rest.partition("?")
    library, _, name = name.partition(":")
    given = dict(option.split("=", 1) for option in options.split("&") if option)
    return library, name, int(side or 224), {key: ast.literal_eval(value) for key, value in given.items()}


def made(spec: str) -> tuple[Any, Any]:
    """A model with random weights and statistics of its own, and inputs for it."""
    import torch

    library, name, side, options = parsed(spec)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, side, side, generator=generator)
    if library == "torchvision":
        model, inputs = _of_torchvision(name, images)
    elif library == "transformers":
        model, inputs = _of_transformers(name)
    else:
        import timm

        model, inputs = timm.create_model(name, pretrained=False, **options), images
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
    from agnostic.port.check import judged, run_in_process, trial
    from agnostic.port.verb import cases, drafted_for
    from agnostic.registry import backend_of, get_backend

    writer = get_backend("keras")[WRITER]
    found: dict[str, str] = {}
    for spec in specs:
        name = ":".join(parsed(spec)[:2])
        start = time.process_time()
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
                result = judged(tried, run_in_process([tried.job], {"KERAS_BACKEND": engine})[0])
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
        print(found[f"{name} {engine}"], f"{time.process_time() - start:.0f} s of processor", flush=True)
    return found


def _cell(message: str) -> str:
    return re.sub(r"[|\n]+", " ", message)[:160]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="such as torchvision:resnet18@64")
    parser.add_argument("--family", choices=sorted(FAMILIES), help="one model of each of its families")
    parser.add_argument("--page", type=Path, default=PAGE, help="a page with the two comments that enclose the table")
    parser.add_argument("--engine", default="jax", choices=["jax", "torch", "tensorflow"])
    given = parser.parse_args()
    specs = list(given.models)
    if given.family:
        library = given.family if given.family in ("timm", "transformers") else "torchvision"
        specs += [f"{library}:{name}" for name in FAMILIES[given.family]]
    before = given.page.read_text()
    start, end = before.index(BEGIN) + len(BEGIN), before.index(END)
    table = {
        " ".join(cell.strip() for cell in line.split("|")[1:3]): line
        for line in before[start:end].strip().splitlines()[2:]
    }
    table |= rows(specs, given.engine)
    text = "\n".join([HEAD, *(table[key] for key in sorted(table))])
    given.page.write_text(f"{before[:start]}\n{text}\n{before[end:]}")


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
