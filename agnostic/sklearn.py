"""The outputs of a layer as features for scikit-learn: a transformer for its pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.checks import one_of, whole_number
from agnostic.contracts.calls import CALLS
from agnostic.contracts.inputs import INPUTS
from agnostic.errors import InvalidInput, MissingDependency, UnknownName
from agnostic.extract.inputs import preparation
from agnostic.extract.parts import forward_of
from agnostic.extract.samples import Sample
from agnostic.layers import Layer, select
from agnostic.models.inputs import run_layers
from agnostic.models.load import load
from agnostic.registry import Backend, model_backend
from agnostic.taps import reductions

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_array, validate_data
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "sklearn":
        raise
    raise MissingDependency("agnostic.sklearn needs scikit-learn: pip install scikit-learn") from None

__all__ = ["Taps"]

Array = npt.NDArray[Any]
_REDUCE = ("mean", "max", None)


class Taps(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The output of a layer for each sample, as rows of features: a frozen network in a pipeline of scikit-learn.

    ``fit`` learns nothing but the shape of the samples.

    Args:
        model: a native model, or a specification such as ``"efficientnet_lite0"``, which is loaded by ``fit``.
        layer: the name of a layer that runs once.
        reduce: ``"mean"`` or ``"max"`` over positions, or None: all numbers of the output.
        shape: of one image, (H, W) or (H, W, C), if the samples are rows of pixels, as scikit-learn's own data sets
            have them; None: samples are as they are.
        size: height and width that images are resized to; None: the model's own, or that of the images.
        batch_size: samples that the model takes at once.

    Attributes:
        model_: the model that runs.
        n_features_in_: length of the rows that ``fit`` saw, if it saw rows.

    Samples are images, (n, H, W, C) or (n, H, W), uint8 or floating point in [0, 1], which are prepared as by
    :func:`agnostic.prepare`. Rows (n, d) without ``shape`` are given to the model as they are, as float32.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> probe = make_pipeline(ag.sklearn.Taps(model, "conv"), LogisticRegression())
        >>> probe.fit(images, [0, 1]).predict(images).shape
        (2,)
    """

    def __init__(
        self,
        model: Any,
        layer: str,
        reduce: str | None = "mean",
        shape: tuple[int, ...] | None = None,
        size: Any = None,
        batch_size: int = 32,
    ) -> None:
        self.model = model
        self.layer = layer
        self.reduce = reduce
        self.shape = shape
        self.size = size
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None) -> Taps:
        """Look at the samples, and run the model on one.

        Args:
            X: the samples.
            y: not used.

        Returns:
            This object.

        Raises:
            InvalidInput: the model does not take the samples, or the layer's output cannot be reduced.
            UnknownName: there is no such layer.
        """
        one_of("reduce", self.reduce, _REDUCE, UnknownName)
        whole_number("batch_size", self.batch_size, 1)
        samples = self._checked(X, first=True)
        self.model_ = load(self.model) if isinstance(self.model, str) else self.model
        backend = model_backend(self.model_)
        self._preparation = None
        if samples.ndim > 2:
            self._preparation = preparation(
                backend, self.model_, Sample("0", samples[0]), prepared=False, size=self.size
            )
        inputs = self._inputs(backend, samples[:1])
        listing = run_layers(backend, self.model_, inputs)
        (found,) = select(listing, [self.layer], model=type(self.model_).__name__)
        self._tap = found
        if found.calls != 1 or (self.reduce is not None and "C" not in (found.axes or "")):
            what = f"it runs {found.calls} times" if found.calls != 1 else f"its axes are {found.axes or 'not known'}"
            raise InvalidInput(
                f"layer {self.layer!r} gives no features: {what}; choose a layer that runs once, with "
                "channels, or reduce=None"
            )
        self._sample_shape = samples.shape[1:]
        self._forward: Any = forward_of(backend, self.model_, [found.name])
        self._n_features_out = self._features(backend, inputs).shape[1]
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """The features of samples.

        Args:
            X: samples of the shape that ``fit`` saw.

        Returns:
            (n, features) float32.

        Raises:
            InvalidInput: the samples have another shape.
        """
        if not hasattr(self, "model_"):
            raise NotFittedError("this Taps has seen no samples: call fit before transform")
        samples, backend = self._checked(X, first=False), model_backend(self.model_)
        if self._forward is None:  # it was pickled
            self._forward = forward_of(backend, self.model_, [self._tap.name])
        parts = [self._features(backend, self._inputs(backend, x)) for x in self._batches(samples)]
        return np.concatenate(parts)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        # A compiled loop belongs to the process.
        return {**state, "_forward": None} if "_forward" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.three_d_array = True
        return tags

    def _checked(self, X: Any, first: bool) -> Array:
        """The samples as an array of numbers."""
        if _axes(X) > 2:
            found: Array = check_array(np.asarray(X), dtype="numeric", ensure_2d=False, allow_nd=True)
            if not first and found.shape[1:] != self._sample_shape:
                raise InvalidInput(
                    f"samples have the shape {found.shape[1:]}, and {self._sample_shape} those that fit saw"
                )
            return found
        rows: Array = validate_data(self, X, reset=first, dtype="numeric")
        if self.shape is None:
            return rows.astype(np.float32)
        if int(np.prod(self.shape)) != rows.shape[1]:
            raise InvalidInput(f"rows of {rows.shape[1]} numbers are no images of the shape {tuple(self.shape)}")
        return rows.reshape(-1, *self.shape)

    def _batches(self, samples: Array) -> Iterator[Array]:
        return (samples[i : i + self.batch_size] for i in range(0, len(samples), self.batch_size))

    def _inputs(self, backend: Backend, samples: Array) -> Any:
        """What the model is called with."""
        if samples.ndim == 2:
            return backend[INPUTS].native_inputs(self.model_, [samples])
        how = self._preparation
        assert how is not None
        rows = how.rows(samples if samples.ndim == 4 else samples[..., None])
        if rows is None:
            rows = how.batch([how.row(Sample(str(i), x)) for i, x in enumerate(samples)])
        return how.native(backend, self.model_, rows)

    def _features(self, backend: Backend, inputs: Any) -> npt.NDArray[np.float32]:
        tap, numpy = self._tap, backend[CALLS].numpy
        x = self._forward(inputs)[tap.name][0]
        if self.reduce is not None:
            x = _reduced(backend, x, tap, self.reduce)
        found = numpy(x)
        return np.asarray(found, np.float32).reshape(len(found), -1)


def _axes(X: Any) -> int:
    """The number of axes of samples: an array's own, or of a list of images one more than those of the first."""
    if isinstance(X, list | tuple) and X:
        return 1 + int(getattr(X[0], "ndim", 0))
    return int(getattr(X, "ndim", 0))


def _reduced(backend: Backend, x: Any, tap: Layer, reduce: str) -> Any:
    axes = tap.axes or ""
    return reductions.mean(backend.ops, x, axes) if reduce == "mean" else reductions.maximum(backend.ops, x, axes)


def __dir__() -> list[str]:
    return sorted(__all__)
