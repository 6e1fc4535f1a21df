"""What ``peers.py`` measures on PyTorch: one contestant in a process that runs its job whenever a line asks for it.

Each contestant is a function from a :class:`Job` to a function without arguments that draws all channels once.
The loops are those that people write; the libraries run through their public interface, with their random views off, so
that a step is the same work for all: one pass forward and one back for each channel.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from peers_job import Job, ours, peak, serve
from torch import nn

Contestant = Callable[[Job], Callable[[], Any]]
MODULES = {"block1_conv1": 0, "block2_conv1": 5, "block3_conv1": 10, "block4_conv1": 17}


def network(job: Job) -> nn.Module:
    """VGG16 as a user has it: weights take gradients, the head is there."""
    import torchvision

    torch.manual_seed(0)
    model: nn.Module = torchvision.models.vgg16(weights=None).eval()
    return model


def loaded(job: Job) -> nn.Module:
    """The same as ours loads it, with Keras' names."""
    import agnostic as ag

    model: nn.Module = ag.load("torchvision:vgg16", weights="random")
    return model.requires_grad_(True)


def _pixels(count: int, job: Job) -> torch.Tensor:
    return torch.rand(count, 3, job.size, job.size) * 20 + 128


def _normalized(image: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    rms = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    return (image + gradient / (rms + 1e-5)).detach()


def tutorial_loop(job: Job) -> Callable[[], Any]:
    """A hook, the whole network, everything differentiated, one channel at a time."""
    model, kept = network(job), {}
    model.features[MODULES[job.layer]].register_forward_hook(lambda m, i, o: kept.update(output=o.clone()))

    def run() -> None:
        for channel in job.channels:
            image = _pixels(1, job)
            for _ in range(job.steps):
                image.requires_grad_()
                model.zero_grad()
                model(image)
                kept["output"][0, channel].mean().backward()
                assert image.grad is not None
                image = _normalized(image, image.grad)

    return run


def batch_loop(dtype: torch.dtype | None) -> Contestant:
    """A competent user's: the network cut at the layer, frozen, channels last, all channels in one batch."""

    def contestant(job: Job) -> Callable[[], Any]:
        model = network(job).features[: MODULES[job.layer] + 1].requires_grad_(False)
        model = model.to(memory_format=torch.channels_last)
        rows, channels = torch.arange(job.count), torch.tensor(job.channels)

        def gradient(images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                output = model(images.contiguous(memory_format=torch.channels_last))
            score = output[rows, channels].float().mean((1, 2)).sum()
            return torch.autograd.grad(score, parameters)[0]

        def classic() -> None:
            images = _pixels(job.count, job)
            for _ in range(job.steps):
                images.requires_grad_()
                images = _normalized(images, gradient(images, images))

        def fourier() -> None:
            spectrum, image_of = _spectrum(job)
            adam = torch.optim.Adam([spectrum], lr=0.05)
            for _ in range(job.steps):
                spectrum.grad = -gradient(image_of(), spectrum)
                adam.step()

        return classic if job.recipe == "classic" else fourier

    return contestant


def _spectrum(job: Job) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
    """A scaled spectrum in decorrelated colours, and the images that it stands for, preprocessed."""
    side = job.size
    y, x = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    scale = 0.25 / (y.square() + x.square()).sqrt().clamp_min(1 / side)
    colour = torch.tensor([[0.56, 0.19, 0.04], [0.58, 0.0, -0.11], [0.58, -0.19, 0.06]])
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    spectrum = (torch.randn(job.count, 3, side, side // 2 + 1, 2) * 0.01).requires_grad_()

    def image() -> torch.Tensor:
        flat = torch.fft.irfft2(torch.view_as_complex(spectrum) * scale, s=(side, side), norm="ortho")
        return (torch.einsum("nchw,dc->ndhw", flat, colour).sigmoid() - mean) / deviation

    return spectrum, image


class _Normalized(torch.optim.Optimizer):
    """Steps along the normalized gradient, for libraries that take an optimizer."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for x in group["params"]:
                    x -= x.grad / (x.grad.square().mean().sqrt() + 1e-5)
        return loss


def _groups(job: Job, batch: bool) -> Iterator[tuple[int, ...]]:
    yield from [job.channels] if batch else [(channel,) for channel in job.channels]


def lucent(batch: bool) -> Contestant:
    def contestant(job: Job) -> Callable[[], Any]:
        from lucent.optvis import objectives, param, render

        model, layer = network(job), f"features_{MODULES[job.layer]}"
        classic = job.recipe == "classic"

        def run() -> None:
            for channels in _groups(job, batch):
                image = functools.partial(
                    param.image, job.size, batch=len(channels), fft=not classic, decorrelate=not classic
                )
                objective = sum(objectives.channel(layer, c, batch=i) for i, c in enumerate(channels))
                render.render_vis(
                    model, objective, transforms=[], fixed_image_size=job.size, thresholds=(job.steps,),
                    param_f=image, optimizer=_Normalized if classic else None, progress=False, show_image=False,
                )  # fmt: skip

        return run

    return contestant


def flashtorch(job: Job) -> Callable[[], Any]:
    from flashtorch.activmax import GradientAscent

    features = network(job).features
    ascent = GradientAscent(features, img_size=job.size)

    def run() -> None:
        for channel in job.channels:
            ascent.optimize(features[MODULES[job.layer]], channel, num_iter=job.steps)

    return run


def torch_dreams(batch: bool) -> Contestant:
    def contestant(job: Job) -> Callable[[], Any]:
        from torch_dreams import Dreamer
        from torch_dreams.auto_image_param import AutoImageParam
        from torch_dreams.batched_image_param import BatchedAutoImageParam
        from torch_dreams.batched_objective import BatchedObjective

        model = network(job)
        dreamer, layer = Dreamer(model, quiet=True, device="cpu"), model.features[MODULES[job.layer]]
        dreamer.set_custom_transforms(nn.Identity())

        def of(channel: int) -> Callable[[Any], Any]:
            return lambda outputs: -outputs[0][:, channel].mean()

        def run() -> None:
            for channels in _groups(job, batch):
                options = {"height": job.size, "width": job.size, "device": "cpu", "standard_deviation": 0.01}
                if batch:
                    image = BatchedAutoImageParam(batch_size=len(channels), lr=0.05, **options)
                    loss = BatchedObjective([of(c) for c in channels])
                else:
                    image, loss = AutoImageParam(**options), of(channels[0])
                dreamer.render([layer], image_parameter=image, iters=job.steps, lr=0.05, custom_func=loss)

        return run

    return contestant


def dreamlens(batch: bool) -> Contestant:
    def contestant(job: Job) -> Callable[[], Any]:
        from dreamlens import FeatureVisualizer, FourierCanvasBatch, PerSampleObjective, channel_objective

        model = network(job)
        drawer, layer = FeatureVisualizer(model, quiet=True), model.features[MODULES[job.layer]]
        options = {"height": job.size, "width": job.size, "iters": job.steps, "lr": 0.05, "transforms": nn.Identity()}

        def run() -> None:
            if batch:
                canvas = FourierCanvasBatch(batch_size=job.count, height=job.size, device="cpu")
                loss = PerSampleObjective([channel_objective(c) for c in job.channels])
                drawer.synthesize([layer], image_parameter=canvas, custom_func=loss, **options)
                return
            for channel in job.channels:
                drawer.synthesize_channel(layer, channel, **options)

        return run

    return contestant


def faccent(job: Job) -> Callable[[], Any]:
    from faccent import objectives, param, render

    model, side = network(job), (job.size, job.size)

    def run() -> None:
        for channel in job.channels:
            render.render_vis(
                model, objectives.channel(f"features_{MODULES[job.layer]}", channel),
                parameterizer=param.fourier(img_size=side, device=torch.device("cpu")), transforms=[nn.Identity()],
                nb_transforms=1, out_thresholds=[job.steps - 1], inline_thresholds=[], preprocess=False,
                progress=False, img_size=side, model_input_size=side, model_input_range=(-2.0, 2.0),
            )  # fmt: skip

    return run


def horama(job: Job) -> Callable[[], Any]:
    from horama.fourier_fv import fourier

    model, kept = network(job), {}
    model.features[MODULES[job.layer]].register_forward_hook(lambda m, i, o: kept.update(output=o.clone()))

    def run() -> None:
        for channel in job.channels:

            def score(images: torch.Tensor, channel: int = channel) -> torch.Tensor:
                model(images)
                return kept["output"][:, channel].mean()

            fourier(
                score, total_steps=job.steps, image_size=job.size, model_input_size=job.size, crops_per_iteration=1,
                device="cpu",
            )  # fmt: skip

    return run


def seconds_of_product(dtype: str) -> Callable[[int], float]:
    """Processor seconds of a matrix product in this process."""

    def seconds(side: int) -> float:
        a, b = (
            torch.from_numpy(np.random.default_rng(i).random((side, side))).to(getattr(torch, dtype)) for i in (0, 1)
        )
        start = time.process_time()
        torch.matmul(a, b)
        return time.process_time() - start

    return seconds


CONTESTANTS: dict[str, Contestant] = {
    "ours float32": ours(loaded, "float32"),
    "ours default": ours(loaded, None),
    "tutorial loop": tutorial_loop,
    "batch loop": batch_loop(None),
    "batch loop bfloat16": batch_loop(torch.bfloat16),
    "torch-lucent": lucent(False),
    "torch-lucent batch": lucent(True),
    "flashtorch": flashtorch,
    "torch-dreams": torch_dreams(False),
    "torch-dreams batch": torch_dreams(True),
    "dreamlens": dreamlens(False),
    "dreamlens batch": dreamlens(True),
    "faccent": faccent,
    "horama": horama,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(CONTESTANTS, lambda dtype: peak(seconds_of_product(dtype)))
