"""``Augmentation``: ranges of random changes, drawn for each image as a pure function of its index."""

from __future__ import annotations

import importlib
import math
import multiprocessing.context
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.augmentation import color, geometry, inputs, parallel
from agnostic.augmentation.warp import WarpMethod, check_path, to_dtype, warp
from agnostic.checks import one_of, whole_number
from agnostic.contracts.augmentation import AUGMENTATION, Parameters
from agnostic.errors import InvalidInput
from agnostic.reference.warp import FillMode, check_order
from agnostic.registry import view, view_method
from agnostic.text import counted

Interval: TypeAlias = tuple[float, float]
# The least and the largest value of each range, what it is, and an example.
_RANGES = {
    "rotation": (-math.inf, math.inf, "in degrees", "(-40, 40)"),
    "height_shift": (-1, 1, "a fraction of the height from -1 to 1, not pixels", "(-0.1, 0.1)"),
    "width_shift": (-1, 1, "a fraction of the width from -1 to 1, not pixels", "(-0.1, 0.1)"),
    "shear": (-89, 89, "in degrees within -89 to 89", "(-10, 10)"),
    "zoom": (0, math.inf, "a factor above 0", "(0.8, 1.25)"),
    "aspect": (0, math.inf, "a factor above 0", "(0.8, 1.25)"),
    "brightness": (0, math.inf, "a factor of 0 or more, where 1 changes nothing", "(0.8, 1.2)"),
    "contrast": (0, math.inf, "a factor of 0 or more, where 1 changes nothing", "(0.8, 1.2)"),
    "channel_shift": (-1, 1, "a fraction of the range of values from -1 to 1", "(-0.1, 0.1)"),
}
_LOGARITHMIC = ("zoom", "aspect")
FILL_MODES: Mapping[str, FillMode] = {
    "nearest": "nearest",
    "constant": "grid-constant",
    "reflect": "reflect",
    "wrap": "grid-wrap",
}
"""The reference's name of each fill mode: the continuous ones, so that rounding decides nothing."""

_IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


class Augmented(NamedTuple):
    """Augmented images and their targets; targets that were not given are None.

    Example:
        >>> ag.augmentation.Augmentation().with_targets(images, seed=0)
        Augmented(images: (2, 16, 16, 3) float32, masks: None, boxes: None, points: None)
    """

    images: Any
    masks: Any = None
    boxes: list[npt.NDArray[np.float64]] | None = None
    points: list[npt.NDArray[np.float64]] | None = None

    def __repr__(self) -> str:
        boxes, points = ("None" if x is None else f"of {counted(len(x), 'image')}" for x in (self.boxes, self.points))
        arrays = f"images: {display.described(self.images)}, masks: {display.described(self.masks)}"
        return f"Augmented({arrays}, boxes: {boxes}, points: {points})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Augmentation:
    """Random changes to images, described by explicit ranges.

    The order of the geometry is flip, zoom, shear, rotation about the image's centre, then shift; all of it is one
    matrix and one resampling. Then values are multiplied (brightness), spread about their mean (contrast), shifted,
    and clipped to ``value_range``. These three need images in that range: values that leave it by more than a quarter
    of its width are an error. Geometric changes work with images in any units.

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
        fill_mode: the pixels outside the image: ``"nearest"`` (the edge pixels), ``"constant"`` (``fill_value``),
            ``"reflect"`` (the image mirrored) or ``"wrap"`` (copies of it side by side). Pixels are squares: the image
            ends half a pixel beyond the outermost centres. ``"constant"`` and ``"wrap"`` are ``grid-constant`` and
            ``grid-wrap`` of :mod:`agnostic.reference.warp`.
        fill_value: the value of ``"constant"`` in images, in their own units.
        mask_fill_value: the value of ``"constant"`` in masks.
        order: 1 interpolates images bilinearly, 0 reads the nearest pixel, as always for masks.
        value_range: (black, white) of images; None for (0, 1) (floating point) or 0 to the dtype's maximum (uint8,
            uint16). For other integers, colour changes need it.
        white: short for ``value_range=(0, white)``.
        path: how NumPy images are warped; see :func:`agnostic.augmentation.warp.warp`.

    Raises:
        InvalidInput: a range is invalid, or out of bounds.

    Example:
        >>> augmentation = ag.augmentation.Augmentation(rotation=(-40, 40), horizontal_flip=0.5)
        >>> augmented = augmentation(images, seed=0)
        >>> augmented.shape, augmented.dtype
        ((2, 16, 16, 3), dtype('float32'))
    """

    rotation: Interval = (0.0, 0.0)
    height_shift: Interval = (0.0, 0.0)
    width_shift: Interval = (0.0, 0.0)
    shear: Interval = (0.0, 0.0)
    zoom: Interval = (1.0, 1.0)
    aspect: Interval = (1.0, 1.0)
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    brightness: Interval = (1.0, 1.0)
    contrast: Interval = (1.0, 1.0)
    channel_shift: Interval = (0.0, 0.0)
    fill_mode: str = "nearest"
    fill_value: float = 0.0
    mask_fill_value: float = 0.0
    order: int = 1
    white: float | None = None
    value_range: Interval | None = None
    path: WarpMethod = "auto"

    def __post_init__(self) -> None:
        one_of("fill_mode", self.fill_mode, FILL_MODES)
        check_order(self.order)
        check_path(self.path)
        for name, (least, most, meaning, example) in _RANGES.items():
            low, high = _range(name, getattr(self, name), example)
            if low < least or high > most or (name in _LOGARITHMIC and low <= 0):
                raise InvalidInput(f"{name} is {meaning}, such as {example}, not {getattr(self, name)!r}")
            object.__setattr__(self, name, (low, high))
        for name in ("horizontal_flip", "vertical_flip"):
            object.__setattr__(self, name, _probability(name, getattr(self, name)))
        for name in ("fill_value", "mask_fill_value"):
            if not _is_number(getattr(self, name)):
                raise InvalidInput(f"{name} is a number, not {getattr(self, name)!r}")
        white, both = self.white, self.white is not None and self.value_range is not None
        if both or (white is not None and not (_is_number(white) and 0 < white < math.inf)):
            raise InvalidInput(f"white is a number above 0, without value_range, not {white!r}")
        if self.value_range is not None:
            low, high = _range("value_range", self.value_range, "(0, 255)")
            if low == high:
                raise InvalidInput(f"value_range is (black, white) such as (0, 255), not {self.value_range!r}")
            object.__setattr__(self, "value_range", (low, high))

    def __repr__(self) -> str:
        return display.changed(self)

    # Parameters -----------------------------------------------------------------------------------------------------
    def parameters(self, seed: int, index: int, shape: Sequence[int], epoch: int = 0) -> Parameters:
        """The changes of one image: a pure function of the arguments.

        Each property has its own random number, so switching one on or off does not change the others. The
        numbers are those of the counter-based generator Philox, with the seed for its key and (epoch, index) for the
        upper half of its counter: streams of different images cannot overlap.

        Args:
            seed: 0 .. 2^128 - 1.
            index: which image of the dataset, 0 .. 2^64 - 1.
            shape: (height, width) or (height, width, channels) of the image; by default 3 channels.
            epoch: which pass over the dataset, 0 .. 2^64 - 1.

        Returns:
            The parameters of image ``index`` in pass ``epoch``; no two images share random numbers.

        Raises:
            InvalidInput: the seed, the index or the epoch is out of range, or the shape is invalid.

        Example:
            >>> augmentation = ag.augmentation.Augmentation(brightness=(0.5, 2))
            >>> augmentation.parameters(0, 7, (16, 16)).brightness == augmentation.parameters(0, 7, (32, 32)).brightness
            True
        """
        if not isinstance(shape, Sequence) or len(shape) not in (2, 3):
            raise InvalidInput(f"the shape of an image is (height, width) or with channels, not {shape!r}")
        shape = [whole_number("shape", side) for side in shape]
        counter = (whole_number("epoch", epoch, most=2**64 - 1) << 192) | (
            whole_number("index", index, most=2**64 - 1) << 128
        )
        bits = np.random.Philox(key=whole_number("seed", seed, most=2**128 - 1), counter=counter)
        return _parameters_of(self, np.random.Generator(bits).random(10 + _channels(shape)), shape)

    # Images ---------------------------------------------------------------------------------------------------------
    def apply(self, image: npt.NDArray[Any], parameters: Parameters) -> npt.NDArray[Any]:
        """Change one NumPy image (H, W, C) by the given parameters; dtype and shape are kept.

        Args:
            image: (H, W, C), floating point or integers.
            parameters: from :meth:`parameters`, or your own.

        Returns:
            A new array of the same shape and dtype.

        Raises:
            InvalidInput: not a NumPy array with three axes, or values outside of ``value_range``.
        """
        if not isinstance(image, np.ndarray) or image.ndim != 3:
            raise InvalidInput(f"an image is a NumPy array (H, W, C), not {type(image).__name__} {np.shape(image)}")
        inputs.check_numbers(image)
        inputs.layout_of("NumPy", "NHWC", (1, *image.shape), None)
        return _changed(self, image, parameters, None)

    def apply_all(
        self, images: npt.NDArray[Any], parameters: Sequence[Parameters], out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """NumPy images (N, H, W, C), each changed by its parameters, in threads; the result is ``out`` or a new array.

        Either may be a view of (N, C, H, W).

        Args:
            images: (N, H, W, C), floating point or integers.
            parameters: N of them.
            out: where to write; None: a new array.

        Returns:
            (N, H, W, C), ``out`` where it was given.

        Raises:
            InvalidInput: the numbers of parameters and images differ.
        """
        result = np.empty(images.shape, images.dtype) if out is None else out

        def change(k: int) -> None:
            place = result[k]
            image = _changed(self, images[k], parameters[k], place)
            if image is not place:
                place[...] = image

        if len(parameters) != len(images):
            raise InvalidInput(f"parameters are one for each of {counted(len(images), 'image')}, not {len(parameters)}")
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
        """Augment a batch of images; returns an array of the same type.

        Args:
            images: a batch with four axes: a NumPy array, a torch tensor on any device, a jax array, or a tensorflow
                tensor.
            seed: see :meth:`parameters`.
            index: the index of the first image, the others following it; or one index per image.
            epoch: see :meth:`parameters`.
            layout: ``"NHWC"`` or ``"NCHW"``; None: the usual one of the framework, ``"NCHW"`` for torch. Then a shape
                that looks like the other layout is an error.

        Returns:
            A batch of the same kind, shape, dtype and device.

        Raises:
            InvalidInput: the batch is not an array of real numbers with four axes; its layout is ambiguous; its values
                are outside of the range for colour changes; or the number of indices is wrong.
        """
        images, layout = _checked(images, layout)
        return _changed_batch(self, images, _batch_parameters(self, images.shape, layout, seed, index, epoch), layout)

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
        """Augment a batch of images together with masks, boxes and key points.

        Args:
            images: see :meth:`__call__`.
            masks: (N, H, W) or in the layout of the images, of their height and width, of any dtype; the nearest pixel
                is read and values are kept exactly.
            boxes: for each image (K, 4), each (left, top, right, bottom) as pixel edges: the whole image is
                (0, 0, width, height). The results are the smallest upright boxes, clipped to the image. A box follows
                the object itself, not its copies by ``fill_mode`` ``"reflect"`` and ``"wrap"``.
            points: for each image (K, 2), each (x, y) with (0, 0) the centre of the first pixel; not clipped.
            seed, index, epoch, layout: see :meth:`__call__`.

        Returns:
            The images and the given targets, in their own forms.

        Raises:
            InvalidInput: see :meth:`__call__`; or a target does not fit the images.

        Example:
            >>> augmentation = ag.augmentation.Augmentation(horizontal_flip=1.0)
            >>> found = augmentation.with_targets(images, seed=0, boxes=[[[0, 0, 4, 8]], []])
            >>> found.boxes[0].tolist()
            [[12.0, 0.0, 16.0, 8.0]]
        """
        images, layout = _checked(images, layout)
        chosen = _batch_parameters(self, images.shape, layout, seed, index, epoch)
        height, width = images.shape[2:] if layout == "NCHW" else images.shape[1:3]
        for name, value in (("masks", masks), ("boxes", boxes), ("points", points)):
            if value is None:
                continue
            if not hasattr(value, "__len__"):
                raise InvalidInput(f"{name} are given one for each image, not as {type(value).__name__}")
            if len(value) != len(chosen):
                raise InvalidInput(f"{name} are given for {counted(len(value), 'image')}, and there are {len(chosen)}")
        if masks is not None:
            masks = _checked_masks(masks, layout, (int(height), int(width)))
        return Augmented(
            _changed_batch(self, images, chosen, layout),
            None if masks is None else _moved_masks(self, masks, chosen, layout),
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

    @property
    def declared_range(self) -> Interval | None:
        """``value_range``, or what ``white`` says of it."""
        return (0.0, float(self.white)) if self.white is not None else self.value_range

    def range_of(self, dtype: npt.DTypeLike) -> Interval:
        """(black, white) of images of a dtype.

        Args:
            dtype: of the images.

        Returns:
            ``value_range``, or (0, 1) for floating point and (0, maximum) for uint8 and uint16.

        Raises:
            InvalidInput: the dtype has none, or none that images commonly fill.
        """
        dtype = np.dtype(dtype)
        if dtype.kind == "b":
            raise InvalidInput("boolean images have no brightness, contrast or channels to shift: convert them first")
        if (declared := self.declared_range) is not None:
            return declared
        if dtype.kind in "iu" and dtype not in (np.uint8, np.uint16):
            # Whoever counts or measures in these rarely uses their whole range.
            raise InvalidInput(
                f"brightness, contrast and channel_shift do not know which values of {dtype} are black and white: give "
                "value_range=(low, high) such as (0, 255), or convert to uint8 or floating point in [0, 1]"
            )
        return (0.0, 1.0) if dtype.kind == "f" else (0.0, float(np.iinfo(dtype).max))

    def check_fill(self, dtype: npt.DTypeLike, name: str = "fill_value") -> None:
        """Check that images of a dtype can hold ``fill_value``.

        Args:
            dtype: of the images.
            name: of the field, for the error.

        Raises:
            InvalidInput: they cannot.
        """
        if self.fill_mode == "constant":
            inputs.check_fill(name, self.fill_value, np.dtype(dtype))
            if self.changes_color:
                color.check_range(self.fill_value, self.fill_value, self.range_of(dtype))

    def apply_numpy(
        self, images: npt.NDArray[Any], chosen: Sequence[Parameters], layout: str, filling: str
    ) -> npt.NDArray[Any]:
        """A batch of NumPy arrays, each changed by its parameters; what backends fall back on.

        Args:
            images: (N, H, W, C) or (N, C, H, W).
            chosen: N parameters.
            layout: ``"NHWC"`` or ``"NCHW"``.
            filling: the field that says what shows outside the image: ``"fill_value"`` or ``"mask_fill_value"``.

        Returns:
            A new array of the same shape and dtype.

        Raises:
            InvalidInput: the images are no numbers, or cannot hold what fills them.
        """
        inputs.check_numbers(images)
        images, dtype = np.asarray(images), images.dtype
        if dtype.name == "bfloat16":
            # NumPy has no arithmetic of its own for it.
            images = images.astype(np.float32)
        self.check_fill(images.dtype, filling)
        if layout == "NHWC":
            result = self.apply_all(images, chosen)
        else:
            result = np.empty(images.shape, images.dtype)
            self.apply_all(images.transpose(0, 2, 3, 1), chosen, result.transpose(0, 2, 3, 1))
        return result.astype(dtype, copy=False)

    # Views ----------------------------------------------------------------------------------------------------------
    def dataset(self, samples: Any, seed: int, layout: str | None = None) -> AugmentedDataset:
        """A map-style dataset whose images are augmented, as torch's ``DataLoader`` takes it; see the class.

        Args:
            samples: see :class:`AugmentedDataset`.
            seed: 0 .. 2^128 - 1; the same seed draws the same changes.
            layout: ``"NHWC"`` or ``"NCHW"``; None: that of the framework.

        Returns:
            The dataset; call its ``set_epoch`` before each epoch.

        Example:
            >>> dataset = ag.augmentation.Augmentation(rotation=(-9, 9)).dataset([(images[0], 1)], seed=0)
            >>> image, label = dataset[0]
            >>> image.shape, label
            ((16, 16, 3), 1)
        """
        return AugmentedDataset(samples, self, seed, layout)

    def view(self, name: str, *args: Any, **options: Any) -> Any:
        """This augmentation as a framework takes it; ``view("torch_module", seed=0)`` is ``torch_module(seed=0)``.

        The backends provide the views:

        - ``torch_module(seed, layout=None)``: a ``torch.nn.Module`` that augments batches in training mode and passes
          them through in evaluation. Its draws depend on the seed and on the number of images it saw; in a worker
          of a ``DataLoader`` also on the seed of that worker, which differs by worker and by epoch.
        - ``keras_layer(seed, layout=None)``: a Keras layer that augments batches in training and passes them through in
          inference; without a layout, as Keras is configured (``image_data_format``).
        - ``tensorflow_map(seed, epoch=0)``: a function ``(index, image) -> image`` for ``tf.data``:
          ``dataset.enumerate().map(...)``; any parallelism.

        Args:
            name: of the view.
            *args, **options: of the view; ``seed`` is 0 .. 2^128 - 1, ``layout`` ``"NHWC"`` or ``"NCHW"``.

        Returns:
            An object of the framework.

        Raises:
            UnknownName: no registered backend has such a view.

        Example:
            >>> module = ag.augmentation.Augmentation(rotation=(-9, 9)).torch_module(seed=0)
            >>> module.train()(torch.zeros(2, 3, 8, 8)).shape
            torch.Size([2, 3, 8, 8])
        """
        return view("augmentation", name)(self, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return view_method(self, "augmentation", name)


def _parameters_of(augmentation: Augmentation, u: npt.NDArray[np.float64], shape: Sequence[int]) -> Parameters:
    """The parameters that the numbers (10 + channels,), uniform in [0, 1), stand for."""
    v = u[:10].tolist()
    angle, down, right, lean = (
        _between(getattr(augmentation, name), v[k])
        for k, name in enumerate(("rotation", "height_shift", "width_shift", "shear"))
    )
    zoom, aspect = (
        math.exp(_between((math.log(low), math.log(high)), v[k]))
        for k, (low, high) in ((4, augmentation.zoom), (5, augmentation.aspect))
    )
    stretch = math.sqrt(aspect)
    flips = (v[6] < augmentation.horizontal_flip, v[7] < augmentation.vertical_flip)
    return Parameters(
        matrix=_matrix(angle, down, right, lean, zoom / stretch, zoom * stretch, *flips, (shape[0], shape[1])),
        brightness=_between(augmentation.brightness, v[8]),
        contrast=_between(augmentation.contrast, v[9]),
        channel_shift=augmentation.channel_shift[0]
        + (augmentation.channel_shift[1] - augmentation.channel_shift[0]) * u[10:],
    )


def _changed(
    augmentation: Augmentation, image: npt.NDArray[Any], parameters: Parameters, out: npt.NDArray[Any] | None
) -> npt.NDArray[Any]:
    """:meth:`Augmentation.apply`; the warp may write to ``out``, of the shape and dtype of the image, and may not."""
    dtype = image.dtype
    if augmentation.changes_color:
        value_range = augmentation.range_of(dtype)
        # Integers without a sign cannot leave the range that is theirs by default.
        if dtype.kind != "u" or augmentation.declared_range is not None:
            color.check_range(*color.extent(image), value_range)
        if dtype.kind in "iu":
            # Rounded once, at the end.
            image, out = image.astype(np.float32 if dtype.itemsize < 4 else np.float64), None
    if parameters.matrix.tolist() != _IDENTITY:
        image = warp(
            image,
            parameters.matrix,
            order=augmentation.order,
            fill_mode=FILL_MODES[augmentation.fill_mode],
            cval=augmentation.fill_value,
            path=augmentation.path,
            out=out,
        )
    if not augmentation.changes_color:
        return image
    low, high = value_range
    mean = color.mean(image) if parameters.contrast != 1 else 0.0
    slope, intercept = color.linear(
        parameters.brightness, parameters.contrast, parameters.channel_shift * (high - low), mean, low
    )
    return to_dtype(np.clip(image * slope + intercept.astype(image.dtype), low, high), dtype)


def _batch_parameters(
    augmentation: Augmentation, shape: Sequence[int], layout: str, seed: int, index: int | Sequence[int], epoch: int
) -> list[Parameters]:
    indices = inputs.indices_of(index, int(shape[0]))
    one = (shape[2], shape[3], shape[1]) if layout == "NCHW" else tuple(shape[1:])
    epoch = whole_number("epoch", epoch, most=2**64 - 1)
    # One generator, set to each image's place in turn: that takes a fifth of the time of making one.
    bits = np.random.Philox(key=whole_number("seed", seed, most=2**128 - 1))
    generator, state = np.random.Generator(bits), bits.state
    chosen = []
    for k in indices:
        state["state"]["counter"][:] = (0, 0, k, epoch)
        bits.state = state
        chosen.append(_parameters_of(augmentation, generator.random(10 + _channels(one)), one))
    return chosen


def _moved_masks(augmentation: Augmentation, masks: Any, chosen: Sequence[Parameters], layout: str) -> Any:
    flat = len(masks.shape) == 3
    axis = 1 if layout == "NCHW" else 3
    if flat:
        masks = masks[:, None] if axis == 1 else masks[..., None]
    still = [Parameters(p.matrix, 1.0, 1.0, np.zeros(1)) for p in chosen]
    reader = Augmentation(
        fill_mode=augmentation.fill_mode, fill_value=augmentation.mask_fill_value, order=0, path=augmentation.path
    )
    moved = _changed_batch(reader, masks, still, layout, "mask_fill_value")
    if flat:
        moved = moved[:, 0] if axis == 1 else moved[..., 0]
    return moved


def _changed_batch(
    augmentation: Augmentation, images: Any, chosen: Sequence[Parameters], layout: str, filling: str = "fill_value"
) -> Any:
    """Any framework's batch, changed; ``filling`` is what the user calls the value that fills what is outside."""
    backend = inputs.backend_of_array(images)
    if backend is None:
        return augmentation.apply_numpy(images, chosen, layout, filling)
    return backend[AUGMENTATION].apply(augmentation, images, chosen, layout, filling)


class AugmentedDataset:
    """A map-style dataset whose images are augmented by their index and the epoch, and by nothing else.


    Call :meth:`set_epoch` before each epoch; it also reaches persistent workers (``persistent_workers=True``).

    Args:
        samples: anything with a length and items that are an image, or a tuple whose first element is one: (H, W, C)
            NumPy, or (C, H, W) torch.
        augmentation: the changes of the images.
        seed: see :meth:`Augmentation.parameters`.
        layout: see :meth:`Augmentation.__call__`.

    Example:
        >>> augmentation = ag.augmentation.Augmentation(rotation=(-9, 9))
        >>> dataset = ag.augmentation.AugmentedDataset(images, augmentation, seed=0)
        >>> dataset.set_epoch(1)
        >>> len(dataset), dataset[0].shape
        (2, (16, 16, 3))
    """

    def __init__(self, samples: Any, augmentation: Augmentation, seed: int, layout: str | None = None) -> None:
        self.samples = samples
        self.augmentation = augmentation
        self.seed = seed
        self.layout = layout
        self._epoch = _shared_number(0)

    def __repr__(self) -> str:
        samples = f"{counted(len(self), 'sample')} of a {type(self.samples).__name__}"
        return f"<AugmentedDataset: {samples}, epoch {self.epoch}, {self.augmentation}>"

    @property
    def epoch(self) -> int:
        """The epoch of the parameters."""
        return int(self._epoch.value)

    def set_epoch(self, epoch: int) -> None:
        """Draw the parameters of another epoch from now on.

        Args:
            epoch: 0 .. 2^64 - 1.

        Raises:
            InvalidInput: not an integer in that range.
        """
        self._epoch.value = whole_number("epoch", epoch, most=2**64 - 1)

    def __getstate__(self) -> dict[str, Any]:
        # On its way to a worker the number goes along as it is, shared; into a file goes what it says.
        spawning = multiprocessing.context.get_spawning_popen() is not None
        return self.__dict__ | ({} if spawning else {"_epoch": self.epoch})

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._epoch, int):
            self._epoch = _shared_number(self._epoch)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        image, rest = (sample[0], tuple(sample[1:])) if isinstance(sample, tuple | list) else (sample, None)
        inputs.backend_of_array(image)
        image = self.augmentation(image[None], seed=self.seed, index=int(index), epoch=self.epoch, layout=self.layout)[
            0
        ]
        return image if rest is None else (image, *rest)


def _shared_number(value: int) -> Any:
    """A number in memory that processes share with those that they start."""
    return importlib.import_module("multiprocessing.sharedctypes").RawValue("Q", value)


def _channels(shape: Sequence[int]) -> int:
    return int(shape[2]) if len(shape) > 2 else 3


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def _range(name: str, value: Any, example: str) -> Interval:
    """A range as two floats.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(value, tuple | list) or len(value) != 2 or not all(_is_number(v) for v in value):
        # Of a symmetric range the one number that was given may be all that is missing.
        meant = f"(-{value}, {value})" if example.startswith("(-") and _is_number(value) and value > 0 else example
        raise InvalidInput(f"{name} is a range (low, high) such as {meant}, not {value!r}")
    low, high = float(value[0]), float(value[1])
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InvalidInput(f"{name} goes from a finite low to a high not below it, not {value!r}")
    return low, high


def _probability(name: str, value: Any) -> float:
    if value is True or (isinstance(value, np.bool_) and value):
        raise InvalidInput(f"{name} is a probability in [0, 1], not True: give 0.5 for half of the images, 1.0 for all")
    known = isinstance(value, numbers.Real | np.bool_)
    if not known or not 0 <= (probability := float(value)) <= 1:
        raise InvalidInput(f"{name} is a probability in [0, 1], not {value!r}")
    return probability


def _checked(images: Any, layout: str | None) -> tuple[Any, str]:
    """A batch of which is known that it is one, and its layout."""
    backend = inputs.backend_of_array(images)
    if backend is None:
        return images, inputs.layout_of("NumPy", "NHWC", tuple(images.shape), layout)
    backend[AUGMENTATION].check_concrete(images)
    usual = "NHWC" if backend.facts.channels_last else "NCHW"
    return images, inputs.layout_of(backend.registration.title, usual, tuple(images.shape), layout)


def _checked_masks(masks: Any, layout: str, sides: tuple[int, int]) -> Any:
    """Masks of which is known that they lie over images of these sides."""
    if isinstance(masks, tuple | list):
        masks = inputs.as_array(masks, "masks")
    backend = inputs.backend_of_array(masks)
    if backend is None:
        inputs.check_numbers(masks, "masks")
    else:
        backend[AUGMENTATION].check_concrete(masks)
    shape = tuple(masks.shape)
    found = shape[1:] if len(shape) == 3 else shape[2:] if layout == "NCHW" else shape[1:3]
    if len(shape) not in (3, 4) or tuple(found) != sides or 0 in shape[1:]:
        like = (shape[0], 1, *sides) if layout == "NCHW" else (shape[0], *sides, 1)
        raise InvalidInput(
            f"masks of shape {shape} do not lie over {layout} images of {sides[0]} x {sides[1]}: "
            f"give {(shape[0], *sides)} or a form of {like}"
        )
    return masks


def _between(bounds: Interval, u: float) -> float:
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
    (cos, sin), tan = geometry.cos_sin(angle), math.tan(math.radians(lean))
    sy, sx = (-zoom_y if vertical_flip else zoom_y), (-zoom_x if horizontal_flip else zoom_x)
    # The inverse of rotation [[cos, -sin], [sin, cos]] @ shear [[1, 0], [tan, 1]] @ scale diag(sy, sx).
    a, b = cos / sy, sin / sy
    c, d = -(sin + tan * cos) / sx, (cos - tan * sin) / sx
    y, x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    to_y, to_x = y + shape[0] * down, x + shape[1] * right
    return np.array([[a, b, y - (a * to_y + b * to_x)], [c, d, x - (c * to_y + d * to_x)]])
