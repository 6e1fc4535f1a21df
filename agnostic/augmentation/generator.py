"""``ImageDataGenerator``: with the signature, random streams and pixels of Keras' legacy class, without Keras."""

from __future__ import annotations

import inspect
import math
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from agnostic import display
from agnostic.augmentation import color, geometry, inputs, iterators, parallel, streams
from agnostic.augmentation.warp import WarpMethod, spline, warp
from agnostic.checks import whole_number
from agnostic.contracts.augmentation import AUGMENTATION
from agnostic.errors import InvalidInput
from agnostic.reference.warp import check_fill_mode
from agnostic.registry import loaded

TransformParameters = dict[str, Any]
_I = TypeVar("_I", bound=iterators.Iterator)


_AXES = {"channels_last": (3, 1, 2), "channels_first": (1, 2, 3)}
"""The axes of channels, rows and columns in a batch."""


class ImageDataGenerator:
    """Random image augmentation with the signature of Keras' legacy class, for any framework.

    The same seed gives the same files, order, parameters and pixels. Where the legacy class draws from NumPy's global
    random stream, this one draws from a private stream with the same seed. Differences: geometry is one
    resampling with the flips in it, an unreadable file is an error that names it,
    and ``data_format`` and ``dtype`` None mean ``"channels_last"`` and ``"float32"`` whatever Keras is configured to.

    Args:
        featurewise_center: subtract the mean that :meth:`fit` found, one number per channel.
        samplewise_center: subtract each image's own mean.
        featurewise_std_normalization: divide by the deviation that :meth:`fit` found, one number per channel.
        samplewise_std_normalization: divide by each image's own deviation.
        zca_whitening: multiply by the whitening matrix that :meth:`fit` found.
        zca_epsilon: added to the singular values before they are inverted.
        rotation_range: degrees; drawn from (-range, range).
        width_shift_range: fraction of the width below 1, pixels otherwise; an integer n draws among 0 .. n-1, a
            sequence among its elements, each with a random sign.
        height_shift_range: likewise for the height. The legacy class exchanges the axes: this one moves columns.
        brightness_range: (low, high) factor; values are truncated to 8 bits on the way.
        shear_range: degrees; drawn from (-range, range).
        zoom_range: (low, high) or the r of (1 - r, 1 + r), drawn for each axis; below 1 magnifies.
        channel_shift_range: drawn from (-range, range), added to all channels, clipped to the image's own range.
        fill_mode: ``"constant"``, ``"nearest"``, ``"reflect"`` or ``"wrap"``.
        cval: what ``"constant"`` fills with.
        horizontal_flip: flip half of the images left to right.
        vertical_flip: flip half of the images top to bottom.
        rescale: factor applied after the transformations; None or 0 for none.
        preprocessing_function: called with each image (H, W, C) before ``rescale``.
        data_format: ``"channels_last"`` or ``"channels_first"``.
        validation_split: fraction in (0, 1) that ``subset="validation"`` takes from the front of each class.
        interpolation_order: 0 reads the nearest pixel, 1 interpolates bilinearly, 2 to 5 by splines, for which SciPy
            must be installed.
        dtype: of the batches.

    Raises:
        InvalidInput: an argument has a value that cannot be used.

    Source: https://keras.io/2/api/data_loading/image/, and the behaviour of ``keras.src.legacy.preprocessing.image``.

    Example:
        >>> generator = ag.augmentation.ImageDataGenerator(rescale=1 / 255, rotation_range=40, horizontal_flip=True)
        >>> batches = generator.flow(images * 255, np.array([0, 1]), batch_size=2, seed=0)
        >>> x, y = next(batches)
        >>> x.shape, y.shape
        ((2, 16, 16, 3), (2,))
    """

    warp_path: WarpMethod = "auto"
    """Set it to ``"exact"`` to always warp in float64; see :func:`agnostic.augmentation.warp.warp`."""

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: float | Sequence[float] = 0.0,
        height_shift_range: float | Sequence[float] = 0.0,
        brightness_range: Sequence[float] | None = None,
        shear_range: float = 0.0,
        zoom_range: float | Sequence[float] = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: str | None = None,
    ) -> None:
        self.data_format = "channels_last" if data_format is None else data_format
        if self.data_format not in tuple(_AXES):
            raise InvalidInput(f"data_format {data_format!r} is neither 'channels_last' nor 'channels_first'")
        self.channel_axis, self.row_axis, self.col_axis = _AXES[self.data_format]
        if validation_split and not 0 < validation_split < 1:
            raise InvalidInput(f"validation_split is a fraction between 0 and 1, not {validation_split!r}")
        self.zoom_range = _zoom(zoom_range)
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.brightness_range = brightness_range
        self.shear_range = shear_range
        self.channel_shift_range = channel_shift_range
        self.fill_mode = check_fill_mode(fill_mode)
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.interpolation_order = _check_order(interpolation_order)
        self.dtype = "float32" if dtype is None else dtype
        self._validation_split = validation_split
        self.mean: npt.NDArray[Any] | None = None
        self.std: npt.NDArray[Any] | None = None
        self.zca_whitening_matrix: npt.NDArray[Any] | None = None
        self._check_numbers()
        _settle(self)
        self._random = np.random.RandomState()

    def __repr__(self) -> str:
        usual, given = ImageDataGenerator(), []
        for name in inspect.signature(ImageDataGenerator).parameters:
            kept = "_validation_split" if name == "validation_split" else name
            own, default = getattr(self, kept), getattr(usual, kept)
            if not (own is default or np.array_equal(own, default)):
                given.append(f"{name}={getattr(own, '__qualname__', None) or repr(own)}")
        return f"{type(self).__name__}({display.listed(given, 250)})"

    def _check_numbers(self) -> None:
        """Raise InvalidInput for a setting that would fail when images are drawn."""
        for name in ("rotation_range", "shear_range", "channel_shift_range", "cval", "zca_epsilon"):
            if not isinstance(getattr(self, name), numbers.Real):
                raise InvalidInput(f"{name} is a number, not {getattr(self, name)!r}")
        for name in ("width_shift_range", "height_shift_range"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) and not all(
                isinstance(v, numbers.Real) for v in (value if isinstance(value, tuple | list | np.ndarray) else [None])
            ):
                raise InvalidInput(f"{name} is a number or a sequence of numbers, not {value!r}")
        if self.brightness_range is not None and not _is_pair(self.brightness_range, tuple | list):
            raise InvalidInput(f"brightness_range is (low, high), not {self.brightness_range!r}")
        scale: Any = self.rescale
        if scale is not None and not isinstance(scale, numbers.Real):
            raise InvalidInput(f"rescale is a number or None, not {scale!r}")
        try:
            known = np.dtype(self.dtype).kind in "fiu"
        except TypeError:
            known = False
        if not known:
            raise InvalidInput(f"dtype is that of the batches, such as 'float32', not {self.dtype!r}")

    @property
    def _transforms(self) -> bool:
        """Whether images are changed at random."""
        ranges = (self.rotation_range, self.shear_range, self.channel_shift_range)
        shifts = (self.width_shift_range, self.height_shift_range)
        moved = any(np.any(np.asarray(value) != 0) for value in (*ranges, *shifts))
        zoomed = list(self.zoom_range) != [1, 1]
        return bool(moved or zoomed or self.horizontal_flip or self.vertical_flip or self.brightness_range is not None)

    def _check_subset(self, subset: str | None) -> None:
        """Warn if validation images would be augmented."""
        if subset == "validation" and self._transforms:
            warnings.warn(
                "subset='validation' of this generator gives augmented images: for validation make a second "
                "ImageDataGenerator with the same validation_split and rescale, and without random changes",
                stacklevel=3,
            )

    # Iterators ------------------------------------------------------------------------------------------------------
    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
    ) -> iterators.NumpyArrayIterator:
        """Endless batches of an array in memory; see :class:`agnostic.augmentation.iterators.NumpyArrayIterator`.

        Args:
            x: (N, H, W, C), or (N, C, H, W) with channels first; or a pair of it and further arrays of length N, which
                are returned unchanged.
            y: labels of length N, or None.
            batch_size: images in a batch; the last one of an epoch may have fewer.
            shuffle: draw a new order for each epoch.
            sample_weight: weights of length N, or None.
            seed: of the order and the changes, 0 .. 2^32 - 1; None: the generator's own stream.
            save_to_dir, save_prefix, save_format: a folder for the transformed images, what their names begin with, and
                their format.
            ignore_class_split: do not ask that both subsets have the same classes.
            subset: ``"training"``, ``"validation"``, or None for all.

        Returns:
            An iterator of ``x``, ``(x, y)`` or ``(x, y, weight)``, x of the generator's dtype.

        Raises:
            InvalidInput: lengths differ, the images have no four axes, or a subset lacks a class.
        """
        self._check_subset(subset)
        return _native(iterators.NumpyArrayIterator)(
            x,
            y,
            self,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
            seed=seed,
            data_format=self.data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            ignore_class_split=ignore_class_split,
            dtype=self.dtype,
        )

    def flow_from_directory(
        self,
        directory: str,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
    ) -> iterators.DirectoryIterator:
        """Endless batches of a folder of classes; see :class:`agnostic.augmentation.iterators.DirectoryIterator`.

        Args:
            directory: a folder with one folder per class.
            target_size: (height, width) that each image is resized to.
            color_mode: ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
            classes: names in the order of their labels; None: all, sorted.
            class_mode: ``"categorical"`` (one-hot), ``"binary"``, ``"sparse"`` (index), ``"input"`` (the images) or
                None.
            batch_size: images in a batch; the last one of an epoch may have fewer.
            shuffle: draw a new order for each epoch.
            seed: of the order and the changes, 0 .. 2^32 - 1; None: the generator's own stream.
            save_to_dir, save_prefix, save_format: a folder for the transformed images, what their names begin with, and
                their format.
            follow_links: look into linked folders.
            subset: ``"training"``, ``"validation"``, or None for all.
            interpolation: how images are resized: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"hamming"``,
                ``"box"`` or ``"lanczos"``.
            keep_aspect_ratio: cut the centre before resizing.

        Returns:
            An iterator of (images (n, H, W, C), labels), or of only the images.

        Raises:
            InvalidInput: a folder is missing or has no images, or an option is unknown.

        Example:
            >>> generator = ag.augmentation.ImageDataGenerator(rescale=1 / 255)
            >>> batches = generator.flow_from_directory("photos", target_size=(8, 8), class_mode="binary", batch_size=4)
            Found 6 images belonging to 2 classes.
            >>> x, y = next(batches)
            >>> x.shape, batches.class_indices
            ((4, 8, 8, 3), {'cat': 0, 'dog': 1})
        """
        self._check_subset(subset)
        return _native(iterators.DirectoryIterator)(
            directory,
            self,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode=class_mode,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            data_format=self.data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            follow_links=follow_links,
            subset=subset,
            interpolation=interpolation,
            keep_aspect_ratio=keep_aspect_ratio,
            dtype=self.dtype,
        )

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | None = None,
        x_col: str = "filename",
        y_col: str | Sequence[str] = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        **kwargs: Any,
    ) -> iterators.DataFrameIterator:
        """Endless batches of files named in a table; see :class:`agnostic.augmentation.iterators.DataFrameIterator`.

        Options that the legacy class dropped (``has_ext``, ``sort``, ``drop_duplicates``) warn and have no effect.

        Args:
            dataframe: a pandas DataFrame, or anything that gives a column by ``table[name]``, such as a dict of lists.
            directory: where relative names start; None: the working folder.
            x_col: the column of file names.
            y_col: the column of labels, or a list of columns.
            weight_col: the column of sample weights, or None.
            target_size: (height, width) that each image is resized to.
            color_mode: ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
            classes: names in the order of their labels; None: all, sorted.
            class_mode: see :class:`agnostic.augmentation.iterators.DataFrameIterator`.
            batch_size: images in a batch; the last one of an epoch may have fewer.
            shuffle: draw a new order for each epoch.
            seed: of the order and the changes, 0 .. 2^32 - 1; None: the generator's own stream.
            save_to_dir, save_prefix, save_format: a folder for the transformed images, what their names begin with, and
                their format.
            subset: ``"training"``, ``"validation"``, or None for all.
            interpolation: see :meth:`flow_from_directory`.
            validate_filenames: skip rows without a file, with a warning.
            **kwargs: ``drop_duplicates``, ``has_ext`` and ``sort`` of the legacy class, which have no effect.

        Returns:
            An iterator, as of :meth:`flow_from_directory`.

        Raises:
            InvalidInput: the classes do not suit ``class_mode``, a column is missing, or no row has a file.

        Example:
            >>> table = {"filename": ["cat/0.png", "dog/0.png"], "class": ["cat", "dog"]}
            >>> generator = ag.augmentation.ImageDataGenerator()
            >>> batches = generator.flow_from_dataframe(table, "photos", target_size=(8, 8), class_mode="sparse")
            Found 2 validated image filenames belonging to 2 classes.
            >>> next(batches)[0].shape
            (2, 8, 8, 3)
        """
        for name in kwargs:
            if name not in ("has_ext", "sort", "drop_duplicates"):
                raise InvalidInput(f"flow_from_dataframe has no argument {name!r}")
            warnings.warn(f"{name} has no effect any more", DeprecationWarning, stacklevel=2)
        if class_mode == "other":
            warnings.warn("class_mode 'other' is now called 'raw'", DeprecationWarning, stacklevel=2)
            class_mode = "raw"
        self._check_subset(subset)
        return _native(iterators.DataFrameIterator)(
            dataframe,
            directory,
            self,
            x_col=x_col,
            y_col=y_col,
            weight_col=weight_col,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode=class_mode,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            data_format=self.data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            interpolation=interpolation,
            dtype=self.dtype,
            validate_filenames=validate_filenames,
        )

    # One image ------------------------------------------------------------------------------------------------------
    def get_random_transform(self, img_shape: Sequence[int], seed: int | None = None) -> TransformParameters:
        """Draw the parameters of one transformation, in the legacy order.

        Args:
            img_shape: shape of the image, without a batch axis.
            seed: seeds the stream first; None: continue the stream.

        Returns:
            ``theta``, ``shear`` in degrees; ``tx``, ``ty`` in pixels; ``zx``, ``zy``; ``flip_horizontal``,
            ``flip_vertical``; ``channel_shift_intensity`` and ``brightness``, which may be None.

        Raises:
            InvalidInput: a shift range is of a kind that cannot be drawn from, or the shape has no height and width.
        """
        if len(img_shape) != 3:
            raise InvalidInput(f"the shape of one image has three axes, not {tuple(img_shape)}")
        random = streams.current(self._random)
        if seed is not None:
            random.seed(whole_number("seed", seed, most=2**32 - 1))
        theta = random.uniform(-self.rotation_range, self.rotation_range) if self.rotation_range else 0
        tx = _draw_shift(random, self.height_shift_range, img_shape[self.row_axis - 1])
        ty = _draw_shift(random, self.width_shift_range, img_shape[self.col_axis - 1])
        shear = random.uniform(-self.shear_range, self.shear_range) if self.shear_range else 0
        low, high = self.zoom_range
        zx, zy = (1, 1) if low == high == 1 else random.uniform(low, high, 2)
        # Both flips are drawn whether they are asked for or not.
        flip_horizontal = (random.random_sample() < 0.5) * self.horizontal_flip
        flip_vertical = (random.random_sample() < 0.5) * self.vertical_flip
        reach = self.channel_shift_range
        shift = random.uniform(-reach, reach) if reach != 0 else None
        bounds = self.brightness_range
        bright = None if bounds is None else random.uniform(bounds[0], bounds[1])
        return {
            "theta": theta,
            "tx": tx,
            "ty": ty,
            "shear": shear,
            "zx": zx,
            "zy": zy,
            "flip_horizontal": flip_horizontal,
            "flip_vertical": flip_vertical,
            "channel_shift_intensity": shift,
            "brightness": bright,
        }

    def apply_transform(self, x: npt.NDArray[Any], transform_parameters: Mapping[str, Any]) -> npt.NDArray[Any]:
        """Transform one image by the given parameters, of which any may be missing.

        Args:
            x: one image in this generator's ``data_format``; it is not changed.
            transform_parameters: see :meth:`get_random_transform`.

        Returns:
            A transformed image of the same shape.
        """
        return self._transformed(_one_image(x), transform_parameters, None)

    def _transformed(
        self, x: npt.NDArray[Any], transform_parameters: Mapping[str, Any], out: npt.NDArray[Any] | None
    ) -> npt.NDArray[Any]:
        """:meth:`apply_transform`; the warp may write to ``out``, (H, W, C) of the dtype of ``x``, and may not."""
        first = self.data_format == "channels_first"
        image = np.ascontiguousarray(x.transpose(1, 2, 0)) if first else x
        get = transform_parameters.get
        bright, shift = get("brightness"), get("channel_shift_intensity")
        flips = tuple(-1 if get(name) else 1 for name in ("flip_vertical", "flip_horizontal"))
        # Brightness truncates to integers, which makes a step of any error, and whitening multiplies it by a million.
        exact = bright is not None or self.zca_whitening
        # Where a value may jump, what decides must be the legacy position to the last bit: then flips put the pixels of
        # the one resampling in the other order.
        jumps = exact or self.interpolation_order != 1 or self.fill_mode in ("constant", "wrap")
        apart = jumps and -1 in flips
        matrix_of = geometry.classic_product if jumps else geometry.classic_matrix
        matrix = matrix_of(transform_parameters, (image.shape[0], image.shape[1]))
        if matrix is not None and self.interpolation_order > 1:
            image = spline(image, matrix, order=self.interpolation_order, fill_mode=self.fill_mode, cval=self.cval)
        elif matrix is not None:
            image = warp(
                image,
                matrix,
                order=self.interpolation_order,
                fill_mode=self.fill_mode,
                cval=self.cval,
                path="exact" if exact or image.dtype != np.float32 else self.warp_path,
                out=None if apart else out,
            )
        if -1 in flips and (apart or matrix is None):
            image = image[:: flips[0], :: flips[1]]
        if shift is not None:
            image = color.channel_shift(image, shift)
        if bright is not None:
            image = color.brightness(image, bright)
        return image.transpose(2, 0, 1) if first else image

    def random_transform(self, x: npt.NDArray[Any], seed: int | None = None) -> npt.NDArray[Any]:
        """Draw parameters and transform one image.

        Args:
            x: one image in this generator's ``data_format``.
            seed: seeds the stream first, 0 .. 2^32 - 1; None: continue the stream.

        Returns:
            A new image of the same shape.
        """
        x = _one_image(x)
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    def fill(self, batch: npt.NDArray[Any], read: Callable[[int], npt.NDArray[Any]]) -> None:
        """Write a batch: each image is read, transformed at random and standardized.

        The parameters are drawn first, image by image, and then the images are made in threads, each straight in its
        place. A user's own methods and ``preprocessing_function`` are called as the legacy class calls them: one image
        after the other, in this thread.

        Args:
            batch: (N, ...), what is written.
            read: gives the image that becomes ``batch[k]``, in this generator's ``data_format``; called in threads.
        """
        if any(
            getattr(getattr(self, name), "__func__", None) is not getattr(ImageDataGenerator, name) for name in _STEPS
        ):
            for k in range(len(batch)):
                image = read(k).copy()
                batch[k] = self.standardize(self.apply_transform(image, self.get_random_transform(image.shape)))
            return
        parameters = [self.get_random_transform(batch.shape[1:]) for _ in batch]
        direct = self.data_format == "channels_last" and self.brightness_range is None
        images: list[npt.NDArray[Any]] = list(batch)

        def transform(k: int) -> None:
            image, out = read(k), batch[k]
            fits = image.dtype == out.dtype and image.shape == out.shape
            image = self._transformed(image, parameters[k], out if direct and fits else None)
            if fits and image is not out:
                out[...] = image
            images[k] = out if fits else image
            if not self.preprocessing_function:
                standardize(k)

        def standardize(k: int) -> None:
            image = self.standardize(images[k])
            if image.base is not batch:
                batch[k] = image

        parallel.each(transform, len(batch))
        if self.preprocessing_function:
            for k in range(len(batch)):
                standardize(k)

    # Normalization --------------------------------------------------------------------------------------------------
    def standardize(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Preprocess, rescale, centre, scale and whiten an image or a batch, as this generator is set to.

        The array is changed in place if possible, as in the legacy class; pass a copy to keep it.

        Args:
            x: (H, W, C) or (N, H, W, C), floating point, or channels first as the generator is set.

        Returns:
            The array, changed in place where that is possible.
        """
        if self.preprocessing_function:
            x = self.preprocessing_function(x)
        if self.rescale:
            x *= self.rescale
        if self.samplewise_center:
            x -= np.mean(x, keepdims=True)
        if self.samplewise_std_normalization:
            x /= np.std(x, keepdims=True) + 1e-6
        if self.featurewise_center:
            if self.mean is not None:
                x -= self.mean
            else:
                _warn_before_fit("featurewise_center")
        if self.featurewise_std_normalization:
            if self.std is not None:
                x /= self.std + 1e-6
            else:
                _warn_before_fit("featurewise_std_normalization")
        if self.zca_whitening:
            if self.zca_whitening_matrix is not None:
                x = np.reshape(x.reshape(-1, math.prod(x.shape[-3:])) @ self.zca_whitening_matrix, x.shape)
            else:
                _warn_before_fit("zca_whitening")
        return x

    def fit(self, x: npt.ArrayLike, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Compute the statistics for the featurewise options and ZCA whitening.

        Args:
            x: (N, H, W, C), or (N, C, H, W) with ``data_format="channels_first"``.
            augment: compute them on randomly transformed images.
            rounds: number of transformations per image, if ``augment``.
            seed: seeds the stream first; None: continue the stream.

        Raises:
            InvalidInput: ``x`` has another number of axes.
        """
        images = np.array(inputs.as_array(x, "the images"), dtype=self.dtype)
        if images.ndim != 4 or 0 in images.shape:
            raise InvalidInput(f"fit takes images with four axes, each of 1 or more, not shape {images.shape}")
        _check_channels(images.shape, self.channel_axis, self.data_format)
        random = streams.current(self._random)
        if seed is not None:
            random.seed(whole_number("seed", seed, most=2**32 - 1))
        if self.rescale:
            images *= self.rescale
        if augment:
            plain, images = images, np.empty((rounds * len(images), *images.shape[1:]), images.dtype)
            for k in range(len(images)):
                images[k] = self.random_transform(plain[k % len(plain)])
        axes = (0, self.row_axis, self.col_axis)
        broadcast = [1, 1, 1]
        broadcast[self.channel_axis - 1] = images.shape[self.channel_axis]
        if self.featurewise_center:
            self.mean = np.mean(images, axis=axes).reshape(broadcast)
            images -= self.mean
        if self.featurewise_std_normalization:
            self.std = np.std(images, axis=axes).reshape(broadcast)
            images /= self.std + 1e-6
        if self.zca_whitening:
            flat = images.reshape(len(images), -1)
            u, s, _ = np.linalg.svd(flat.T, full_matrices=False)
            self.zca_whitening_matrix = (u * (np.sqrt(len(images)) / (s + self.zca_epsilon))).dot(u.T)


def _settle(generator: ImageDataGenerator) -> None:
    """Set, with a warning, the options that others imply."""
    implied: list[tuple[str, str, bool]] = []
    if generator.zca_whitening:
        implied += [
            ("zca_whitening", "featurewise_center", True),
            ("zca_whitening", "featurewise_std_normalization", False),
        ]
    elif generator.featurewise_std_normalization:
        implied.append(("featurewise_std_normalization", "featurewise_center", True))
    if generator.samplewise_std_normalization:
        implied.append(("samplewise_std_normalization", "samplewise_center", True))
    for cause, option, value in implied:
        if getattr(generator, option) != value:
            setattr(generator, option, value)
            warnings.warn(f"{cause} sets {option} to {value}", stacklevel=3)


def _is_pair(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and len(value) == 2 and all(isinstance(v, numbers.Real) for v in value)


def _zoom(given: Any) -> list[float]:
    """(low, high) of a zoom's range."""
    if isinstance(given, numbers.Real):
        return [1 - float(given), 1 + float(given)]
    if _is_pair(given, tuple | list | np.ndarray):
        return [given[0], given[1]]
    raise InvalidInput(f"zoom_range is a number or (low, high), not {given!r}")


def _one_image(x: Any) -> npt.NDArray[Any]:
    """One image as NumPy; InvalidInput says what else was given."""
    image = inputs.as_array(x, "the image")
    if image.ndim != 3 or 0 in image.shape:
        raise InvalidInput(
            f"one image has three axes, each of 1 or more, not shape {image.shape}; transform the images of a batch "
            "one by one"
        )
    return image


def _check_order(order: int) -> int:
    if isinstance(order, bool) or order not in range(6):
        raise InvalidInput(f"interpolation_order is 0 (nearest pixel), 1 (bilinear) or 2 to 5 (splines), not {order!r}")
    return int(order)


_STEPS = ("get_random_transform", "apply_transform", "standardize")


def _warn_before_fit(option: str) -> None:
    warnings.warn(f"{option} has no effect before fit(): call fit(images) first", stacklevel=3)


def _draw_shift(random: np.random.RandomState, reach: Any, size: int) -> Any:
    """A shift in pixels: among the elements of a sequence or 0 .. n-1, or uniform for a floating-point number."""
    if not reach:
        return 0
    if isinstance(reach, float | np.floating):
        shift = random.uniform(-reach, reach)
    else:
        shift = random.choice(reach) * random.choice([-1, 1])
    return shift * size if np.max(reach) < 1 else shift


def _check_channels(shape: Sequence[int], axis: int, data_format: str) -> None:
    if shape[axis] not in (1, 3, 4):
        warnings.warn(
            f"images of shape {tuple(shape)} have {shape[axis]} channels where data_format {data_format!r} has them, "
            "and 1, 3 or 4 are usual: check data_format",
            stacklevel=3,
        )


def _native(cls: type[_I]) -> type[_I]:
    """The iterator class, as the frameworks that are loaded want it."""
    for twin in loaded(AUGMENTATION):
        cls = twin.dataset_class(cls)
    return cls
