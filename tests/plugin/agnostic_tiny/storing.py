"""Capabilities: models, weights, data and augmentation."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from agnostic import contracts
from agnostic.data import Ragged, pad_sequences
from agnostic.errors import InvalidInput, InvalidWeights, UnknownName
from agnostic.files import atomic_path
from agnostic.models.weights import fit
from agnostic_tiny.networks import net
from agnostic_tiny.tape import Tensor


class Models(contracts.Models):
    def build(self, architecture):
        raise InvalidInput(f"tiny networks have no layers for {architecture.name}: load 'tiny:net'")

    def load(self, spec, weights, *, trust=False):
        if spec != "tiny:net":
            raise UnknownName(f"no network {spec!r}: there is 'tiny:net'")
        model = net()
        if isinstance(weights, Path):
            _weights.load_weights(model, weights, spec)
        return model


class Weights(contracts.Weights):
    def weights(self, model):
        return {name: x.value.copy() for name, x in model.parameters().items()}

    def set_weights(self, model, values):
        own = model.parameters()
        for ours, theirs in fit({k: x.shape for k, x in own.items()}, {k: x.shape for k, x in values.items()}).items():
            own[ours].value = np.array(values[theirs], np.float32)

    def read_weights(self, path):
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InvalidWeights(f"cannot read weights from {path}: {error}") from None

    def load_weights(self, model, path, name):
        self.set_weights(model, self.read_weights(path))

    def save(self, model, path):
        if path.suffix != ".npz":
            raise InvalidInput(f"tiny networks are written as .npz, not as {path.name!r}")
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **self.weights(model))


class Data(contracts.Data):
    def take(self, array, order):
        return array[order]

    def pad_rows(self, rows, *options):
        return Tensor(pad_sequences([x.value for x in rows], *options))

    def pad_ragged(self, values, lengths, *options):
        return Tensor(pad_sequences(Ragged(values.value, lengths), *options))

    def resize(self, pixels, size, interpolation):
        return np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling[interpolation.upper()]))

    def check_transform(self, transform):
        raise InvalidInput(f"a {type(transform).__name__} changes no images: give a function or an Augmentation")

    def transform_image(self, transform, image, draws):
        self.check_transform(transform)


def stream(batches):
    """``batches.tiny()``: the batches with their images as tensors."""
    return ((Tensor(images), labels) for images, labels in batches)


class Augmentations(contracts.Augmentations):
    def check_concrete(self, images):
        """Every tensor has its values."""

    def apply(self, augmentation, images, parameters, layout, filling):
        return Tensor(augmentation.apply_numpy(images.value, parameters, layout, filling))

    def dataset_class(self, cls):
        return cls


models, weights, data, augmentation = Models(), Weights(), Data(), Augmentations()
_weights = weights
