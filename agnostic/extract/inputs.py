"""From samples to what a model takes: the same for every sample of a data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.arrays import describe
from agnostic.contracts.inputs import INPUTS
from agnostic.errors import InvalidInput
from agnostic.extract.samples import Sample
from agnostic.models.call import ModelCall
from agnostic.models.cards import Preprocessing
from agnostic.models.forms import Input
from agnostic.models.inputs import Size
from agnostic.models.preparing import fit_images, image_place, preprocessed
from agnostic.registry import Backend, Model

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Preparation:
    """How samples become inputs.

    Attributes:
        form: of the input that takes images; None where samples are already what the model takes.
        call: the model's other inputs.
        preprocessing: into the range that the model expects; None: none.
        shape: of a sample as :meth:`row` returns it.
    """

    form: Input | None
    call: ModelCall
    preprocessing: Preprocessing | None
    shape: tuple[int, ...]

    def row(self, sample: Sample) -> Array:
        """A sample in the size that the model takes: (H, W, C) of an image; else as it is.

        Raises:
            InvalidInput: it has another shape or range.
        """
        value = sample.value
        if self.form is not None:
            found: Array = fit_images(self.form, _image(value)[None], value)[0]
            return found
        if value.shape != self.shape:
            raise InvalidInput(
                f"sample {sample.name!r} has the shape {value.shape} and the first one {self.shape}: samples that are "
                "not prepared here have one shape; give images as NumPy arrays (H, W, C), which are resized"
            )
        return value

    def rows(self, values: Array) -> Array | None:
        """Samples (n, ...) that are one array, as :meth:`batch` returns them; None where one of them may be refused."""
        if values.shape[1:] != self.shape or (self.form is not None and values.dtype != np.uint8):
            return None
        return values if self.form is None else self.form.arrange(preprocessed(values, self.preprocessing))

    def batch(self, rows: list[Array]) -> Array:
        """Samples as a batch: floating point in the model's range for images."""
        if self.form is None:
            return np.stack(rows)
        whole = np.stack(rows) if len({x.dtype for x in rows}) == 1 else np.stack([_unit(x) for x in rows])
        return self.form.arrange(preprocessed(whole, self.preprocessing))

    def native(self, backend: Backend, model: Model, batch: Array) -> Any:
        """What the model is called with."""
        if self.form is None:
            return backend[INPUTS].native_inputs(model, [batch])
        return self.call.native(backend, model, batch)

    def blank(self) -> Array:
        """In the place of a sample that cannot be read."""
        return np.zeros(self.shape, np.float32 if self.form is None else np.uint8)

    def said(self) -> dict[str, Any]:
        """As JSON values, for the store."""
        if self.form is None:
            return {"prepared": True, "shape": list(self.shape)}
        own = None if self.preprocessing is None else asdict(self.preprocessing)
        # Through JSON and back tuples are lists.
        own = own and {key: list(x) if isinstance(x, tuple) else x for key, x in own.items()}
        return {
            "prepared": False,
            "size": list(self.form.size or ()),
            "channels": self.form.length("C"),
            "axes": self.form.axes,
            "resizing": "cover, antialiased bicubic, centre crop",
            "preprocessing": own,
            "inputs": [str(x.shape) for x in self.call.others],
        }


def preparation(
    backend: Backend,
    model: Model,
    first: Sample,
    *,
    prepared: bool | None = None,
    inputs: Any = None,
    image: int | str | None = None,
    size: Size | None = None,
    channels_in: int | None = None,
) -> Preparation:
    """How the samples of a data set are prepared, which its first one tells.

    Args:
        first: the first sample that can be read.
        prepared: whether samples are already what the model takes; None: those that are arrays of a framework and
            floating point are.
        inputs, image, size, channels_in: as for :func:`agnostic.prepare`.

    Raises:
        InvalidInput: the model does not take the sample, or it is not clear whether it is prepared.
    """
    value = first.value
    if not value.ndim:
        raise InvalidInput(f"a sample is one number, {value}, and an image (H, W, C) or another array is expected")
    if prepared is None:
        if first.native and value.dtype.kind != "f" and value.ndim == 3:
            raise InvalidInput(
                f"the samples are {value.dtype} arrays of a framework, {value.shape}: give images as NumPy arrays "
                "(H, W, C), or say prepared=True where they are what the model takes"
            )
        prepared = first.native or value.ndim not in (2, 3)
    if prepared:
        if inputs is not None or size is not None or channels_in is not None:
            raise InvalidInput("samples that are prepared have a size already: leave out inputs, size and channels_in")
        return Preparation(None, ModelCall(), None, value.shape)
    picture = _image(value)
    near = (picture.shape[0], picture.shape[1])
    form, call, preprocessing = image_place(
        backend, model, inputs=inputs, image=image, size=size, channels_in=channels_in, near=near
    )
    shape = fit_images(form, picture[None], value)[0].shape
    return Preparation(form, call, preprocessing, shape)


def _image(value: Array) -> Array:
    """(H, W, C)."""
    if value.ndim not in (2, 3):
        raise InvalidInput(
            f"a sample is {describe(value)}, and an image is (H, W, C) or (H, W): say prepared=True where "
            "samples are what the model takes"
        )
    if value.dtype == np.int64 and value.size and value.min() >= 0 and value.max() <= 255:
        # What lists of bytes become, as Hugging Face data sets give them.
        value = value.astype(np.uint8)
    return value[..., None] if value.ndim == 2 else value


def _unit(image: Array) -> npt.NDArray[np.float32]:
    found = image / np.float32(255) if image.dtype == np.uint8 else image
    return found.astype(np.float32, copy=False)
