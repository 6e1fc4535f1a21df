"""From the user's images to the inputs of a model, the same for all functions and commands."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.contracts.inputs import INPUTS
from agnostic.errors import InvalidInput
from agnostic.models.attached import card_of
from agnostic.models.call import ModelCall, image_among, number_of, picture_call
from agnostic.models.cards import Preprocessing
from agnostic.models.forms import Input
from agnostic.models.inputs import Size, image_input
from agnostic.registry import Backend, Model, model_backend

ImageArray = npt.NDArray[Any]

_GREY = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue in grey: Rec. ITU-R BT.601-7, section 2.5.1, as Pillow's conversion to "L"."""


def preprocessing_of(backend: Backend, model: Model, place: int = 0) -> Preprocessing | None:
    """From images in [0, 1] to the input of the model: by its card, else by its own first layer; or None.

    Args:
        place: of the images among the model's inputs.
    """
    card = card_of(model)
    return backend[INPUTS].stated_preprocessing(model, place) if card is None else card.preprocessing


def model_inputs(
    model: Model,
    images: npt.ArrayLike | str | os.PathLike[str],
    *,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels_in: int | None = None,
) -> Any:
    """See :func:`agnostic.taps.verbs.prepare`."""
    backend = model_backend(model)
    form, call, _, pixels = model_pixels(model, images, inputs=inputs, image=image, size=size, channels_in=channels_in)
    return call.native(backend, model, form.arrange(pixels))


def model_pixels(
    model: Model,
    images: npt.ArrayLike | str | os.PathLike[str],
    *,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels_in: int | None = None,
) -> tuple[Input, ModelCall, ImageArray, npt.NDArray[np.float32]]:
    """Images as a model takes them, still in NumPy and with their channels last.

    Args as for :func:`agnostic.taps.verbs.prepare`.

    Returns:
        The model's input of images, what it is called with around them, the images (N, H, W, C) in the size and with
        the channels of that input, and the same in the model's range.
    """
    backend, array = model_backend(model), _batch(images)
    form, call, preprocessing = image_place(
        backend, model, inputs=inputs, image=image, size=size, channels_in=channels_in, near=_size(array)
    )
    resized = fit_images(form, array, images)
    return form, call, resized, preprocessed(resized, preprocessing)


def image_place(
    backend: Backend,
    model: Model,
    *,
    inputs: Any,
    image: int | str | None,
    size: Size | None,
    channels_in: int | None,
    near: tuple[int, int] | None,
) -> tuple[Input, ModelCall, Preprocessing | None]:
    """Where a model takes images.

    Args as for :func:`agnostic.taps.verbs.prepare`; ``near`` as for :func:`agnostic.models.inputs.inputs_of`.

    Returns:
        The model's input of images, what it is called with around them, and the preprocessing of that input.
    """
    if inputs is None:
        form, place = image_among(backend, model, image=image, size=size, channels=channels_in, near=near)
        call = ModelCall()
    else:
        form, call = picture_call(
            backend, model, inputs=inputs, image=image, size=size, channels=channels_in, near=near
        )
        place = number_of(backend, model, call)
    return form, call, preprocessing_of(backend, model, place)


def preprocessed(pixels: ImageArray, preprocessing: Preprocessing | None) -> npt.NDArray[np.float32]:
    """(N, H, W, C), uint8 or floating point in [0, 1], in the range that a model expects."""
    if pixels.dtype == np.uint8:
        pixels = pixels / np.float32(255)
    found: npt.NDArray[np.float32] = pixels.astype(np.float32, copy=False)
    if preprocessing is not None:
        from agnostic.reference.ops import NumpyOps

        found = preprocessing.apply(NumpyOps(), found).astype(np.float32)
    return found


def resized_images(
    backend: Backend,
    model: Model,
    images: npt.ArrayLike | str | os.PathLike[str],
    *,
    size: Size | None = None,
    channels_in: int | None = None,
) -> tuple[Input, ImageArray]:
    """Images in the size and with the channels that a model takes, and the form of its input.

    Args as for :func:`agnostic.taps.verbs.prepare`.

    Returns:
        The model's input, and (N, H, W, C), uint8 or floating point in [0, 1].
    """
    array = _batch(images)
    form = image_input(backend, model, size=size, channels=channels_in, near=_size(array))
    return form, fit_images(form, array, images)


def images_for(form: Input, images: npt.ArrayLike) -> ImageArray:
    """Images (H, W, C) or (N, H, W, C), uint8 or in [0, 1], in the size and with the channels of a model's input.

    Raises:
        InvalidInput: they are no such images.
    """
    return fit_images(form, _batch(images), images)


def _batch(images: npt.ArrayLike | str | os.PathLike[str]) -> ImageArray:
    """(N, H, W, C) from any accepted form of images; other arrays are returned unchanged."""
    if isinstance(images, str | os.PathLike):
        from agnostic.files import read_image

        images = read_image(images)
    array = np.asarray(images)
    if array.ndim == 2:
        array = array[..., None]
    return array[None] if array.ndim == 3 else array


def _size(array: ImageArray) -> tuple[int, int] | None:
    return (int(array.shape[1]), int(array.shape[2])) if array.ndim == 4 and 0 not in array.shape else None


def fit_images(form: Input, array: ImageArray, images: Any) -> ImageArray:
    """Images in the size and with the channels of an input.

    Args:
        form: of the input.
        array: (N, H, W, C), uint8 or floating point in [0, 1].
        images: as they were given, for messages.

    Returns:
        (N, height, width, channels) of the same type.

    Raises:
        InvalidInput: they have another number of channels or dimensions, or are out of range.
    """
    own, channels = _size(array), form.length("C")
    grey = channels == 1 and array.ndim == 4 and array.shape[3] == 3
    if own is None or (array.shape[3] != channels and not grey):
        raise InvalidInput(
            f"images for this model have the shape (N, H, W, {channels}), channels last, not {np.shape(images)}"
        )
    _check_range(array)
    if grey:
        array = _grey(array)
    if form.size not in (None, own):
        array = np.stack([resized(x, *form.size) for x in array])
    return array


def _check_range(array: ImageArray) -> None:
    if array.dtype == np.uint8:
        return
    if not np.issubdtype(array.dtype, np.floating):
        raise InvalidInput(f"images are uint8, or floating point in [0, 1], not {array.dtype}")
    if not (array.min() >= 0 and array.max() <= 1):
        raise InvalidInput(
            f"floating-point images are finite and in [0, 1], not in [{array.min():.3g}, {array.max():.3g}]; "
            "divide by 255 first"
        )


def _grey(array: ImageArray) -> ImageArray:
    grey: ImageArray = (array @ _GREY)[..., None]
    return np.rint(grey).astype(np.uint8) if array.dtype == np.uint8 else grey.astype(array.dtype)


def resized(image: ImageArray, height: int, width: int) -> ImageArray:
    """An image in another size: scaled to cover it, antialiased, and cropped to its centre.

    Args:
        image: (H, W, C), uint8 or floating point in [0, 1].

    Returns:
        (height, width, C) of the same type.
    """
    from PIL import Image, ImageOps

    def fit(picture: Any) -> ImageArray:
        found: ImageArray = np.array(ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC))
        return found

    if image.dtype == np.uint8 and image.shape[2] == 3:
        return fit(Image.fromarray(image))
    planes = [image[..., c] for c in range(image.shape[2])]
    if image.dtype == np.uint8:
        return np.stack([fit(Image.fromarray(x)) for x in planes], -1)
    # A cubic reaches beyond the range of what it interpolates.
    found = np.stack([fit(Image.fromarray(x.astype(np.float32))) for x in planes], -1)
    return found.clip(0, 1).astype(image.dtype)
