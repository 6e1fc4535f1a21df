"""The PyTorch backend. Importing this package imports no framework; its modules do."""

from agnostic.registry import Facts, Registration

_CAPABILITIES = (
    "ascent", "attribution", "augmentation", "calls", "copies", "data", "description", "devices", "doctor", "ensembles",
    "fixes", "gradients", "guards", "inputs", "layers", "learning", "models", "ops", "optimizers", "ported", "program",
    "recording", "taps", "transfer", "weights", "writer",
)  # fmt: skip

registration = Registration(
    name="torch",
    title="PyTorch",
    requires="torch",
    extra="agnostic-ml[torch]",
    provides={name: f"agnostic_torch.{name}" for name in _CAPABILITIES},
    model_classes=("torch.nn:Module",),
    array_classes=("torch:Tensor",),
    optimizer_classes=("torch.optim:Optimizer",),
    facts=Facts(
        channels_last=False,
        kernels_last=False,
        momentum_kept=False,
        recurrent_biases=2,
        set_inference="call model.eval() first",
    ),
    specs={"torchvision": "torchvision:vgg16", "timm": "timm:resnet18"},
    weight_readers=dict.fromkeys((".pth", ".pt", ".bin", ".ckpt"), "agnostic_torch.pth:read_checkpoint"),
    weight_files=(".pth", ".pt", ".safetensors"),
    views={
        "augmentation": {"torch_module": "agnostic_torch.augmentation:RandomAugmentation"},
        "batches": {
            "torch": "agnostic_torch.batches:ImageStream",
            "dataloader": "agnostic_torch.batches:ImageLoader",
        },
    },
)
