"""Port models, run what was written, and write the table of docs/port.md.

    scripts/port-table.py torchvision:resnet18@64 timm:convnext_atto@64 --engine jax
    scripts/port-table.py --family segmentation --engine torch
    scripts/port-table.py --family applications --engine torch      # Keras to PyTorch, Keras on that engine

A row stands for one model on one engine: the verdict, the error of its outputs and the floor, the transposes that
remain, the lines of the written source, and what of the inputs' sizes is free. Rows of other models are kept.
"""

from __future__ import annotations

import argparse
import ast
import os
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

APPLICATIONS = [
    "ConvNeXtTiny@32", "DenseNet121@32", "EfficientNetB0@32", "EfficientNetV2B0@32", "InceptionResNetV2@75",
    "InceptionV3@75", "MobileNet@32", "MobileNetV2@32", "MobileNetV3Small@32", "ResNet50@32",
    "ResNet50V2@32", "VGG16@32", "Xception@71",
]  # fmt: skip

LAYERS = {
    (8, 9, 6): """
        Conv2D(4, 3) | Conv2D(4, 3, 2, padding="same") | Conv2D(4, (3, 2), dilation_rate=2, activation="gelu")
        Conv2D(4, 3, groups=2, use_bias=False) | Conv2D(4, 3, data_format="channels_first") | DepthwiseConv2D(3)
        DepthwiseConv2D(3, 2, depth_multiplier=2, padding="same") | SeparableConv2D(4, 3) | Conv2DTranspose(4, 3)
        SeparableConv2D(4, 3, dilation_rate=2, padding="same") | Conv2DTranspose(4, 3, 2, padding="same")
        Conv2DTranspose(4, 3, 2, output_padding=1) | Conv2DTranspose(4, 2, 3) | BatchNormalization()
        BatchNormalization(axis=1, center=False) | BatchNormalization(scale=False) | GroupNormalization(3)
        GroupNormalization(-1) | GroupNormalization(1, scale=False) | LayerNormalization()
        LayerNormalization(axis=[1, 2, 3]) | LayerNormalization(axis=[2, 3], scale=False) | RMSNormalization()
        UnitNormalization() | UnitNormalization(axis=1) | SpectralNormalization(Conv2D(4, 3))
        MaxPooling2D() | MaxPooling2D(3, 2, padding="same") | AveragePooling2D((2, 3)) | AveragePooling2D(3, 2)
        AveragePooling2D(3, 2, padding="same") | GlobalAveragePooling2D() | GlobalMaxPooling2D(keepdims=True)
        AdaptiveAveragePooling2D((4, 3)) | AdaptiveMaxPooling2D(3) | PReLU() | PReLU(shared_axes=[1, 2])
        Permute((3, 1, 2)) | Flatten() | Flatten(data_format="channels_first") | Reshape((-1, 6)) | Reshape((4, -1))
        ZeroPadding2D(((1, 2), (0, 3))) | Cropping2D(((1, 0), (2, 1))) | CenterCrop(4, 5) | UpSampling2D((2, 3))
        UpSampling2D(2, interpolation="bilinear") | UpSampling2D(2, interpolation="bicubic") | Rescaling(1 / 127, -1)
        Resizing(13, 5) | Resizing(5, 7, interpolation="nearest") | Resizing(5, 12, crop_to_aspect_ratio=True)
        Resizing(5, 12, pad_to_aspect_ratio=True) | Normalization(mean=[1, 2, 3, 4, 5, 6], variance=[1, 2, 3, 4, 5, 6])
        SpatialDropout2D(0.3) | Dropout(0.2, noise_shape=(None, 1, 1, 6)) | GaussianNoise(0.1) | GaussianDropout(0.2)
        AlphaDropout(0.1) | RandomFlip() | RandomRotation(0.1) | RandomZoom(0.1) | RandomContrast(0.1)
        Dense(5) | EinsumDense("abcd,de->abce", (None, None, 5), bias_axes="e") | ActivityRegularization(0.1)
        TimeDistributed(Dense(4)) | TimeDistributed(Conv1D(4, 3)) | Softmax(axis=[1, 2]) | Identity()
        Lambda(lambda x: x[:, ::2, 1:, 0] ** 2)
    """,
    (9, 6): """
        Conv1D(4, 3, padding="causal", dilation_rate=2) | Conv1D(4, 3, 2, padding="same") | Conv1D(4, 3, groups=2)
        DepthwiseConv1D(3, depth_multiplier=2) | SeparableConv1D(4, 3, padding="same") | Conv1DTranspose(4, 3, 2)
        Conv1DTranspose(4, 3, 2, padding="same") | MaxPooling1D(3, 2, padding="same") | AveragePooling1D(3, 1)
        AveragePooling1D(3, 2, padding="same") | GlobalAveragePooling1D() | GlobalMaxPooling1D()
        AdaptiveAveragePooling1D(4) | AdaptiveMaxPooling1D(3) | ZeroPadding1D((1, 2)) | Cropping1D((1, 2))
        UpSampling1D(3) | LSTM(4) | LSTM(4, return_sequences=True, go_backwards=True) | LSTM(4, use_bias=False)
        LSTM(4, activation="relu", recurrent_activation="hard_sigmoid") | LSTM(4, unroll=True, unit_forget_bias=False)
        GRU(4) | GRU(4, reset_after=False) | GRU(4, return_sequences=True, use_bias=False) | SimpleRNN(4)
        SimpleRNN(4, activation="relu", go_backwards=True) | Bidirectional(LSTM(4, return_sequences=True))
        Bidirectional(GRU(3), merge_mode="mul") | Bidirectional(SimpleRNN(3), merge_mode=None) | RNN(LSTMCell(4))
        RNN([LSTMCell(4), GRUCell(3), SimpleRNNCell(2)], return_sequences=True) | TimeDistributed(Dense(3))
        EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de") | EinsumDense("abc,bcd->ad", 4) | Masking()
        SpatialDropout1D(0.2) | BatchNormalization() | GroupNormalization(2, axis=-1)
        Softmax() | ReLU(2.0, 0.1, 0.3) | LeakyReLU(0.1) | ELU(0.5) | PReLU() | Activation("mish") | Activation("silu")
        Activation("hard_swish") | Activation("softsign") | Activation("log_softmax") | Activation("sparse_plus")
        Activation("glu") | Activation("squareplus") | Activation("hard_tanh")
        Activation("tanh_shrink") | Activation("celu") | Activation("exponential") | Activation("selu")
        Activation("relu6") | Activation("sparsemax") | Activation("gelu") | Activation("hard_sigmoid")
        Activation("hard_shrink") | Activation("soft_shrink") | Activation("linear") | Activation("softplus")
        STFTSpectrogram(frame_length=4, frame_step=2, fft_length=8)
    """,
    (5, 6, 7, 4): """
        Conv3D(4, 3) | Conv3D(4, 2, 2, padding="same") | Conv3DTranspose(4, 3, 2, padding="same") | MaxPooling3D(2)
        AveragePooling3D((2, 3, 2), padding="same") | GlobalAveragePooling3D() | GlobalMaxPooling3D() | UpSampling3D(2)
        ZeroPadding3D(1) | Cropping3D(((1, 0), (2, 1), (0, 3))) | SpatialDropout3D(0.2) | ConvLSTM2D(3, 3)
        ConvLSTM2D(3, 3, padding="same", return_sequences=True) | AdaptiveAveragePooling3D(2) | BatchNormalization()
        TimeDistributed(Conv2D(4, 3, 2, padding="same")) | LayerNormalization() | AdaptiveMaxPooling3D((2, 3, 2))
    """,
    (6,): """
        Dense(5, activation="tanh") | Dense(5, use_bias=False) | RepeatVector(4) | Reshape((2, 3))
        Discretization([0.0, 1.0])
        BatchNormalization(momentum=0.9, epsilon=0.01) | LayerNormalization(epsilon=0.01) | UnitNormalization()
        SpectralNormalization(Dense(4)) | Rescaling([1., 2, 3, 4, 5, 6]) | Dropout(0.5) | Softmax()
    """,
}
"""Layers of one input, by the shape of a sample."""

INTEGERS = """
    Embedding(11, 4) | Embedding(11, 4, mask_zero=True) | CategoryEncoding(11, output_mode="multi_hot")
    CategoryEncoding(11, output_mode="count") | IntegerLookup(vocabulary=[3, 5, 7]) | ReversibleEmbedding(11, 4)
"""
"""Layers that take integers."""

SEVERAL = """
    Add() | Subtract() | Multiply() | Average() | Maximum() | Minimum() | Concatenate(axis=1) | Concatenate()
    Dot(axes=2) | Dot(axes=(2, 2), normalize=True) | Attention() | Attention(use_scale=True, score_mode="concat")
    AdditiveAttention()
    MultiHeadAttention(2, 3) | MultiHeadAttention(2, 3, value_dim=4, output_shape=5, use_bias=False)
    GroupQueryAttention(3, 4, 2)
"""
"""Layers of two inputs."""

FAMILIES = {
    "torchvision": TORCHVISION, "segmentation": SEGMENTATION, "video": VIDEO, "flow": FLOW, "backbones": BACKBONES,
    "transformers": TRANSFORMERS, "timm": TIMM, "applications": APPLICATIONS,
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
    if library == "keras":
        return _of_keras(name, side)
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


def _of_keras(name: str, side: int) -> tuple[Any, Any]:
    import keras

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(side, side, 3))
    return _shaken(model), np.random.default_rng(0).standard_normal((2, side, side, 3)).astype("float32")


def _shaken(model: Any) -> Any:
    """The Keras model with statistics and offsets of its own."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        name = weight.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.8, 1.2, weight.shape))
        elif name in ("beta", "moving_mean", "bias"):
            weight.assign(0.1 * generator.standard_normal(weight.shape))
    return model


def layer_models() -> list[tuple[str, Any, Any]]:
    """Each layer of keras.layers as a model of its own, with inputs."""
    import keras

    generator, known = np.random.default_rng(0), vars(keras.layers)
    found = []

    def parts(text: str) -> list[str]:
        return [part.strip() for line in text.strip().splitlines() for part in line.split(" | ")]

    def add(text: str, made: list[Any], given: list[Any]) -> None:
        if text.partition("(")[0] not in known:
            return  # which this release of Keras does not have
        layer = eval(text, dict(known))  # noqa: S307 (the texts above)
        attends = text.startswith(("MultiHead", "GroupQuery"))
        made_of = made if attends or len(made) == 1 else [made]
        found.append((text, _shaken(keras.Model(made, layer(*made_of))), given))

    for shape, texts in LAYERS.items():
        for text in parts(texts):
            add(text, [keras.Input(shape)], [generator.standard_normal((2, *shape)).astype("float32")])
    for text in parts(INTEGERS):
        add(text, [keras.Input((5,), dtype="int32")], [generator.integers(0, 11, (2, 5)).astype("int32")])
    for text in parts(SEVERAL):
        pair = [generator.standard_normal((2, 5, 6)).astype("float32") for _ in range(2)]
        add(text, [keras.Input((5, 6)) for _ in pair], pair)
    return found


def count_layers() -> None:
    """Port each layer of keras.layers to PyTorch, run all, and print what differs and how many are the same."""
    from agnostic.contracts.writer import WRITER
    from agnostic.errors import AgnosticError
    from agnostic.port.check import judged, run_in_process, trial
    from agnostic.port.verb import cases, drafted_for
    from agnostic.registry import backend_of, get_backend

    writer, trials, failed = get_backend("torch")[WRITER], [], 0
    models = layer_models()
    with tempfile.TemporaryDirectory(prefix="port-table-") as folder:
        for number, (text, model, inputs) in enumerate(models):
            try:
                inputs = inputs[0] if len(inputs) == 1 else inputs
                backend = backend_of(model)
                written = drafted_for(backend, model, inputs, writer.dialect())
                path = Path(folder) / f"ported_{number}.py"
                path.write_text(written.draft.written.text)
                weights = writer.write_weights(written.arrays, path.parent, path.stem)
                given = cases(backend, inputs, written.variation)
                trials.append((text, trial(backend, model, written.draft, given, "torch", path, weights)))
            except AgnosticError as error:
                failed += 1
                print(f"refused {text}: {_cell(str(error))}", flush=True)
        for (text, tried), outcome in zip(trials, run_in_process([tried.job for _, tried in trials]), strict=True):
            try:
                wrong = [row for row in judged(tried, outcome) if not row.is_same]
            except AgnosticError as error:
                wrong = [_cell(str(error))]
            failed += bool(wrong)
            if wrong:
                print(f"differs {text}: {wrong[:2]}", flush=True)
    print(f"{len(models) - failed} of {len(models)} layers of keras.layers are the same")


def rows(specs: list[str], engine: str) -> dict[str, str]:
    """A row for each model."""
    from agnostic.contracts.writer import WRITER
    from agnostic.errors import AgnosticError
    from agnostic.port.check import judged, run_in_process, trial
    from agnostic.port.verb import cases, drafted_for
    from agnostic.registry import backend_of, get_backend

    found: dict[str, str] = {}
    for spec in specs:
        name = ":".join(parsed(spec)[:2])
        target = "torch" if parsed(spec)[0] == "keras" else "keras"
        writer = get_backend(target)[WRITER]
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
                tried = trial(backend, model, written.draft, given, target, path, weights)
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
    parser.add_argument(
        "--layers", action="store_true", help="count the layers of keras.layers that are the same in torch"
    )
    given = parser.parse_args()
    os.environ["KERAS_BACKEND"] = given.engine
    if given.layers:
        count_layers()
        return
    specs = list(given.models)
    if given.family:
        libraries = {"timm": "timm", "transformers": "transformers", "applications": "keras"}
        library = libraries.get(given.family, "torchvision")
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
