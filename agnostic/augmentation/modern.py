"""``Augmentation``: what may happen to an image as ranges, and what does as a pure function of its index."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from agnostic.augmentation import color, geometry, parallel
from agnostic.augmentation.warp import Path, to_dtype, warp
from agnostic.checks import whole_number
from agnostic.errors import InvalidInput
from agnostic.reference.warp import check_fill_mode, check_order

Range: TypeAlias = tuple[float, float]
_RANGES = (
    "rotation",
    "height_shift",
    "width_shift",
    "shear",
    "zoom",
    "aspect",
    "brightness",
    "contrast",
    "channel_shift",
)
_FACTORS = ("zoom", "aspect")
_IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@dataclass(frozen=True, eq=False)
class Parameters:
    """What happens to one image.

    Attributes:
        matrix: (2, 3) float64; output pixel (y, x) is read at ``matrix @ (y, x, 1)`` of the input, in pixels.
        brightness: factor of all values.
        contrast: factor of the distance from the image's mean.
        channel_shift: (C,) float64, added to each channel, as a fraction of the range of values.
    """

    matrix: npt.NDArray[np.float64]
    brightness: float
    contrast: float
    channel_shift: npt.NDArray[np.float64]


class Augmented(NamedTuple):
    """Images and what moved with them; what was not given is None."""

    images: Any
    masks: Any = None
    boxes: list[npt.NDArray[np.float64]] | None = None
    points: list[npt.NDArray[np.float64]] | None = None


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes to images, described by explicit ranges.

    The order of the geometry is flip, zoom, shear, rotation about the image's centre, then shift; all of it is one
    matrix and one resampling. Then values are multiplied (brightness), spread about their mean (contrast), shifted,
    and clipped to their range, which is 0 .. 1 for floating-point images and the dtype's for integers, or ``white``.

    Attributes:
        rotation: (low, high) degrees; positive turns the picture counter-clockwise.
        height_shift: (low, high) fraction of the height; positive moves down.
        width_shift: (low, high) fraction of the width; positive moves right.
        shear: (low, high) degrees by which upright lines lean.
        zoom: (low, high) factor, uniform in its logarithm; above 1 magnifies.
        aspect: (low, high) factor of the width against the height, uniform in its logarithm.
        horizontal_flip: probability of exchanging left and right.
        vertical_flip: probability of exchanging top and bottom.
        brightness: (low, high) factor.
        contrast: (low, high) factor.
        channel_shift: (low, high) fraction of the range of values, drawn for each channel.
        fill_mode: what shows outside the image: ``"nearest"``, ``"constant"``, ``"reflect"`` or ``"wrap"``; see
            :mod:`agnostic.reference.warp`.
        fill_value: what ``"constant"`` shows in images, in their own units.
        mask_fill_value: what ``"constant"`` shows in masks.
        order: 1 interpolates images bilinearly, 0 reads the nearest pixel, as is always done with masks.
        white: the largest value of an image, None for 1 (floating point) or the dtype's maximum (integers).
        path: how NumPy images are warped; see :func:`agnostic.augmentation.warp.warp`.

    Raises:
        InvalidInput: a range is none, or out of bounds.
    """

    rotation: Range = (0.0, 0.0)
    height_shift: Range = (0.0, 0.0)
    width_shift: Range = (0.0, 0.0)
    shear: Range = (0.0, 0.0)
    zoom: Range = (1.0, 1.0)
    aspect: Range = (1.0, 1.0)
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    channel_shift: Range = (0.0, 0.0)
    fill_mode: str = "nearest"
    fill_value: float = 0.0
    mask_fill_value: float = 0.0
    order: int = 1
    white: float | None = None
    path: Path = "auto"

    def __post_init__(self) -> None:
        check_fill_mode(self.fill_mode)
        check_order(self.order)
        for name in _RANGES:
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or len(value) != 2:
                example = "(0.8, 1.25)" if name in _FACTORS else f"(-{value}, {value})"
                raise InvalidInput(f"{name} is a range (low, high) such as {example}, not {value!r}")
            low, high = float(value[0]), float(value[1])
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise InvalidInput(f"{name} goes from a finite low to a high not below it, not {value!r}")
            if name in _FACTORS and low <= 0:
                raise InvalidInput(f"{name} is a factor above 0, not {value!r}")
            object.__setattr__(self, name, (low, high))
        if self.shear[0] < -89 or self.shear[1] > 89:
            raise InvalidInput(f"shear stays within -89 to 89 degrees, and {self.shear!r} does not")
        for name in ("horizontal_flip", "vertical_flip"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InvalidInput(f"{name} is a probability in [0, 1], not {value!r}")

    # Parameters -----------------------------------------------------------------------------------------------------
    def parameters(self, seed: int, index: int, shape: Sequence[int], epoch: int = 0) -> Parameters:
        """What happens to one image: a pure function of the arguments.

        Each property has a random number of its own, so turning one on or off leaves the others as they were. The
        numbers are those of the counter-based generator Philox, with the seed for its key and (epoch, index) for the
        upper half of its counter: streams of different images cannot overlap.

        Args:
            seed: 0 .. 2^128 - 1.
            index: which image of the dataset, 0 .. 2^64 - 1.
            shape: (height, width) or (height, width, channels) of the image; 3 channels if not said.
            epoch: which pass over the dataset, 0 .. 2^64 - 1.

        Raises:
            InvalidInput: the seed, the index or the epoch is out of range.
        """
        _check_counters(seed, index, epoch)
        counter = (int(epoch) << 192) | (int(index) << 128)
        bits = np.random.Philox(key=int(seed), counter=counter)
        return self._of_numbers(np.random.Generator(bits).random(10 + _channels(shape)), shape)

    def _of_numbers(self, u: npt.NDArray[np.float64], shape: Sequence[int]) -> Parameters:
        """The parameters that the numbers (10 + channels,), uniform in [0, 1), stand for."""
        v = u[:10].tolist()
        angle, down, right, lean = (
            _between(getattr(self, name), v[k])
            for k, name in enumerate(("rotation", "height_shift", "width_shift", "shear"))
        )
        zoom, aspect = (
            math.exp(_between((math.log(low), math.log(high)), v[k]))
            for k, (low, high) in ((4, self.zoom), (5, self.aspect))
        )
        stretch = math.sqrt(aspect)
        flips = (v[6] < self.horizontal_flip, v[7] < self.vertical_flip)
        return Parameters(
            matrix=_matrix(angle, down, right, lean, zoom / stretch, zoom * stretch, *flips, (shape[0], shape[1])),
            brightness=_between(self.brightness, v[8]),
            contrast=_between(self.contrast, v[9]),
            channel_shift=self.channel_shift[0] + (self.channel_shift[1] - self.channel_shift[0]) * u[10:],
        )

    # Images ---------------------------------------------------------------------------------------------------------
    def apply(self, image: npt.NDArray[Any], parameters: Parameters) -> npt.NDArray[Any]:
        """One NumPy image (H, W, C), changed by the given parameters; dtype and shape stay."""
        return self._apply(image, parameters, None)

    def _apply(self, image: npt.NDArray[Any], parameters: Parameters, out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        """:meth:`apply`; the warp may write to ``out``, of the shape and dtype of the image, and may not."""
        dtype = image.dtype
        if self.changes_color and dtype.kind in "iu":
            # Rounded once, at the end.
            image, out = image.astype(np.float32 if dtype.itemsize < 4 else np.float64), None
        if parameters.matrix.tolist() != _IDENTITY:
            image = warp(
                image,
                parameters.matrix,
                order=self.order,
                fill_mode=self.fill_mode,
                cval=self.fill_value,
                path=self.path,
                out=out,
            )
        if not self.changes_color:
            return image
        white = self.white_of(dtype)
        mean = float(image.mean(dtype=np.float64))
        slope, intercept = color.linear(
            parameters.brightness, parameters.contrast, parameters.channel_shift * white, mean
        )
        return to_dtype(np.clip(image * slope + intercept.astype(image.dtype), 0, white), dtype)

    def apply_all(
        self, images: npt.NDArray[Any], parameters: Sequence[Parameters], out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """NumPy images (N, H, W, C), each changed by its parameters, in threads; the result is ``out`` or a new array.

        Either may be a view of (N, C, H, W).
        """
        result = np.empty(images.shape, images.dtype) if out is None else out

        def change(k: int) -> None:
            place = result[k]
            image = self._apply(images[k], parameters[k], place)
            if image is not place:
                place[...] = image

        if len(parameters) != len(images):
            raise InvalidInput(f"{len(parameters)} parameters are given for {len(images)} images")
        parallel.each(change, len(images))
        return result

    def __call__(
        self,
        images: Any,
        *,
        seed: int,
        index: int | Sequence[int] = 0,
        epoch: int = 0,
        layout: str | None = None,
    ) -> Any:
        """A batch of images, augmented: native in, native out.

        Args:
            images: a batch with four axes: a NumPy array, a torch tensor on any device, a jax array, or a tensorflow
                tensor.
            seed: see :meth:`parameters`.
            index: the index of the first image, the others following it; or one a image.
            epoch: see :meth:`parameters`.
            layout: ``"NHWC"`` or ``"NCHW"``; None: that which the framework uses, ``"NCHW"`` for torch.

        Returns:
            A batch of the same kind, shape, dtype and device.

        Raises:
            InvalidInput: the batch has other axes, or as many indices as it has images are not given.
        """
        layout = layout or _layout_of(images)
        return self._apply_batch(images, self._batch_parameters(images.shape, layout, seed, index, epoch), layout)

    def with_targets(
        self,
        images: Any,
        *,
        seed: int,
        index: int | Sequence[int] = 0,
        epoch: int = 0,
        layout: str | None = None,
        masks: Any = None,
        boxes: Sequence[npt.ArrayLike] | None = None,
        points: Sequence[npt.ArrayLike] | None = None,
    ) -> Augmented:
        """A batch of images, and what belongs to their places, moved alike.

        Args:
            images: see :meth:`__call__`.
            masks: (N, H, W) or in the layout of the images, of the same framework and any dtype; the nearest pixel is
                read and the values stay.
            boxes: for each image (K, 4), each (left, top, right, bottom) as pixel edges: the whole image is
                (0, 0, width, height). They come back as the smallest upright boxes, clipped to the image.
            points: for each image (K, 2), each (x, y) with (0, 0) the centre of the first pixel; not clipped.
        """
        layout = layout or _layout_of(images)
        chosen = self._batch_parameters(images.shape, layout, seed, index, epoch)
        height, width = images.shape[2:] if layout == "NCHW" else images.shape[1:3]
        for name, value in (("masks", masks), ("boxes", boxes), ("points", points)):
            if value is not None and len(value) != len(chosen):
                raise InvalidInput(f"{name} are given for {len(value)} images, and there are {len(chosen)}")
        return Augmented(
            self._apply_batch(images, chosen, layout),
            None if masks is None else self._move_masks(masks, chosen, layout),
            None
            if boxes is None
            else [geometry.move_boxes(b, p.matrix, (height, width)) for b, p in zip(boxes, chosen, strict=True)],
            None
            if points is None
            else [geometry.move_points(b, p.matrix) for b, p in zip(points, chosen, strict=True)],
        )

    @property
    def changes_color(self) -> bool:
        """Whether any value may change beyond resampling."""
        return (self.brightness, self.contrast, self.channel_shift) != ((1.0, 1.0), (1.0, 1.0), (0.0, 0.0))

    def white_of(self, dtype: npt.DTypeLike) -> float:
        """The largest value of images of a dtype."""
        dtype = np.dtype(dtype)
        return self.white if self.white is not None else 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)

    def _batch_parameters(
        self, shape: Sequence[int], layout: str, seed: int, index: int | Sequence[int], epoch: int
    ) -> list[Parameters]:
        if layout not in ("NHWC", "NCHW"):
            raise InvalidInput(f"layout {layout!r} is neither 'NHWC' nor 'NCHW'")
        if len(shape) != 4:
            raise InvalidInput(
                f"a batch of images has four axes, not shape {tuple(shape)}; give one image as image[None]"
            )
        count = int(shape[0])
        if isinstance(index, Iterable) and np.ndim(index):
            indices = [whole_number("index", k, most=2**64 - 1) for k in index]
        else:
            first = whole_number("index", index, most=2**64 - 1)
            indices = list(range(first, first + count))
        if len(indices) != count:
            raise InvalidInput(f"{len(indices)} indices are given for {count} images")
        one = (shape[2], shape[3], shape[1]) if layout == "NCHW" else tuple(shape[1:])
        _check_counters(seed, 0, epoch)
        # One generator, set to each image's place in turn: that takes a fifth of the time of making one.
        bits = np.random.Philox(key=int(seed))
        generator, state = np.random.Generator(bits), bits.state
        chosen = []
        for k in indices:
            _check_counters(seed, k, epoch)
            state["state"]["counter"][:] = (0, 0, k, epoch)
            bits.state = state
            chosen.append(self._of_numbers(generator.random(10 + _channels(one)), one))
        return chosen

    def _move_masks(self, masks: Any, chosen: Sequence[Parameters], layout: str) -> Any:
        flat = len(masks.shape) == 3
        axis = 1 if layout == "NCHW" else 3
        if flat:
            masks = masks[:, None] if axis == 1 else masks[..., None]
        still = [Parameters(p.matrix, 1.0, 1.0, np.zeros(1)) for p in chosen]
        reader = Augmentation(fill_mode=self.fill_mode, fill_value=self.mask_fill_value, order=0, path=self.path)
        moved = reader._apply_batch(masks, still, layout)
        if flat:
            moved = moved[:, 0] if axis == 1 else moved[..., 0]
        return moved

    def _apply_batch(self, images: Any, chosen: Sequence[Parameters], layout: str) -> Any:
        kind = _kind(images)
        if kind == "torch":
            return importlib.import_module("agnostic_torch.augmentation").apply(self, images, chosen, layout)
        if kind == "numpy":
            return self._apply_numpy(images, chosen, layout)
        adapter = importlib.import_module("agnostic_keras.augmentation")
        return adapter.through_numpy(lambda values: self._apply_numpy(values, chosen, layout), images)

    def _apply_numpy(self, images: npt.NDArray[Any], chosen: Sequence[Parameters], layout: str) -> npt.NDArray[Any]:
        if layout == "NHWC":
            return self.apply_all(images, chosen)
        result = np.empty(images.shape, images.dtype)
        self.apply_all(images.transpose(0, 2, 3, 1), chosen, result.transpose(0, 2, 3, 1))
        return result

    # Views ----------------------------------------------------------------------------------------------------------
    def dataset(self, samples: Any, seed: int) -> AugmentedDataset:
        """A map-style dataset whose images are augmented, as torch's ``DataLoader`` takes it; see the class."""
        return AugmentedDataset(samples, self, seed)

    def torch_module(self, seed: int) -> Any:
        """A ``torch.nn.Module`` that augments batches in training mode and passes them through in evaluation."""
        return importlib.import_module("agnostic_torch.augmentation").RandomAugmentation(self, seed)

    def keras_layer(self, seed: int) -> Any:
        """A Keras layer that augments batches in training and passes them through in inference."""
        return importlib.import_module("agnostic_keras.augmentation").augmentation_layer(self, seed)

    def tensorflow_map(self, seed: int, epoch: int = 0) -> Any:
        """A function ``(index, image) -> image`` for ``tf.data``: ``dataset.enumerate().map(...)``; any parallelism."""
        return importlib.import_module("agnostic_keras.augmentation").tensorflow_map(self, seed, epoch)


class AugmentedDataset:
    """A map-style dataset whose images are augmented by their index and the epoch, and by nothing else.

    Args:
        samples: anything with a length and items that are an image, or a tuple whose first element is one: (H, W, C)
            NumPy, or (C, H, W) torch.
        augmentation: what happens to the images.
        seed: see :meth:`Augmentation.parameters`.

    Call :meth:`set_epoch` before each epoch; workers that live on between epochs (``persistent_workers=True``) hold a
    copy of the dataset and do not hear of it.
    """

    def __init__(self, samples: Any, augmentation: Augmentation, seed: int) -> None:
        self.samples = samples
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other parameters from now on: those of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        image, rest = (sample[0], tuple(sample[1:])) if isinstance(sample, tuple | list) else (sample, None)
        image = self.augmentation(image[None], seed=self.seed, index=int(index), epoch=self.epoch)[0]
        return image if rest is None else (image, *rest)


def _channels(shape: Sequence[int]) -> int:
    return int(shape[2]) if len(shape) > 2 else 3


def _check_counters(seed: int, index: int, epoch: int) -> None:
    for name, value, bits in (("seed", seed, 128), ("index", index, 64), ("epoch", epoch, 64)):
        whole_number(name, value, most=2**bits - 1)


def _kind(images: Any) -> str:
    """Which framework an array is of, by its class; nothing is imported."""
    for cls in type(images).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in ("numpy", "torch", "tensorflow"):
            return root
        if root in ("jax", "jaxlib"):
            return "jax"
    name = f"{type(images).__module__}.{type(images).__qualname__}"
    raise InvalidInput(f"images are a NumPy, torch, jax or tensorflow array with four axes, not {name}")


def _layout_of(images: Any) -> str:
    return "NCHW" if _kind(images) == "torch" else "NHWC"


def _between(bounds: Range, u: float) -> float:
    """The number a fraction ``u`` of the way; exactly the bound where both are equal."""
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _matrix(
    angle: float,
    down: float,
    right: float,
    lean: float,
    zoom_y: float,
    zoom_x: float,
    horizontal_flip: bool,
    vertical_flip: bool,
    shape: tuple[int, int],
) -> npt.NDArray[np.float64]:
    """The matrix of flip, zoom, shear and rotation about the centre, and then shift, as read from the output."""
    cos, sin, tan = math.cos(math.radians(angle)), math.sin(math.radians(angle)), math.tan(math.radians(lean))
    sy, sx = (-zoom_y if vertical_flip else zoom_y), (-zoom_x if horizontal_flip else zoom_x)
    # The inverse of rotation [[cos, -sin], [sin, cos]] @ shear [[1, 0], [tan, 1]] @ scale diag(sy, sx).
    a, b = cos / sy, sin / sy
    c, d = -(sin + tan * cos) / sx, (cos - tan * sin) / sx
    y, x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    to_y, to_x = y + shape[0] * down, x + shape[1] * right
    return np.array([[a, b, y - (a * to_y + b * to_x)], [c, d, x - (c * to_y + d * to_x)]])
