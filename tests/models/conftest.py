"""The embedded network, and photographs in its size."""

import numpy as np
import pytest
import torch
from PIL import Image

from agnostic.models.attached import card_of
from agnostic.models.load import load
from agnostic.reference.ops import NumpyOps


@pytest.fixture(scope="session")
def lite0():
    return load("efficientnet_lite0", backend="torch")


@pytest.fixture(scope="session")
def see():
    """A function that gives the classes that a model sees in a photograph of scikit-image, with their probabilities.

    The whole photograph is resized to the model's size, bicubic and antialiased, whatever that does to its proportions.
    """

    def see(model, photograph, count=3):
        data = pytest.importorskip("skimage.data")
        card = card_of(model)
        height, width = card.size
        resized = Image.fromarray(getattr(data, photograph)()).resize((width, height), Image.Resampling.BICUBIC)
        images = card.preprocessing.apply(NumpyOps(), np.asarray(resized, np.float32)[None] / 255)
        with torch.inference_mode():
            found = model(torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(-1)[0].topk(count)
        return {card.class_names[i]: float(p) for p, i in zip(*found, strict=True)}

    return see
