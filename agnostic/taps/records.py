"""Records: the outputs of layers by layer name, one entry per call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

from agnostic import display
from agnostic.errors import InvalidInput, UnknownName, nearest
from agnostic.guards import count, error
from agnostic.layers import Layer
from agnostic.taps import format
from agnostic.text import counted, type_named

Key = Any
"""A key of a record: a name, a place in the record, a Layer, or one of the model's own layer objects."""


class Activations(Mapping[str, Any]):
    """The outputs of the chosen layers: a mapping from the layer's name to the framework's own array.

    The keys are the names that the caller gave, and the framework's own names for layers chosen by a glob, an index or
    a kind. A layer is also found by its aliases, by its position in the record (``record[0]``, ``record[-1]``), and by
    the layer object: ``record[model[0]]``.

    An output that is not a single array (a tuple, a dict, a named tuple, a dataclass) is kept as it is, with the
    framework's own arrays inside.

    A layer that ran several times has one entry per call in ``.calls(name)``; ``[name]`` is then an error, because
    it would be ambiguous.

    Example:
        >>> record = ag.capture(model, ag.prepare(model, images), ["conv", "head"])
        >>> record["head"].shape, record.axes("conv")
        (torch.Size([2, 4]), 'NCHW')
        >>> record.numpy()["head"].dtype
        dtype('float32')
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        calls: Mapping[str, Sequence[Any]],
        to_numpy: Callable[[Any], Any],
        about: Mapping[str, Any] | None = None,
        name_of: Callable[[Any], str | None] | None = None,
    ) -> None:
        """Backends make records.

        Args:
            layers: by key, in the order of the keys.
            calls: the output of each call, by the layer's own name; may grow while the model runs.
            to_numpy: turns what one call returned into the same structure of NumPy arrays.
            about: facts of the model and its inputs, as JSON values.
            name_of: the name of one of the model's own layer objects; None for anything else.
        """
        self._layers = dict(layers)
        self.about = dict(about or {})
        self._calls = calls
        self._to_numpy = to_numpy
        self._name_of = name_of

    @property
    def layers(self) -> Mapping[str, Layer]:
        """The layers by key."""
        return dict(self._layers)

    def layer(self, name: Key) -> Layer:
        """The layer for a key, a name, an alias, a position in this record, or a layer object.

        Args:
            name: its key, own name or alias, its position from 0, or the model's own layer object.

        Returns:
            The layer.

        Raises:
            UnknownName: no such layer is recorded here.
        """
        if not isinstance(name, bool) and isinstance(name, Integral):
            if not -len(self) <= int(name) < len(self):
                raise UnknownName(f"no layer {name} in this record: it has {len(self)}, counted from 0")
            return list(self._layers.values())[int(name)]
        if isinstance(name, Layer):
            name = name.name
        elif not isinstance(name, str):
            name = self._own_name(name) or type_named(name)
        if name in self._layers:
            return self._layers[name]
        for layer in self._layers.values():
            if name == layer.name or name in layer.aliases:
                return layer
        known = ", ".join(self._layers) if 0 < len(self._layers) < 9 else f"{counted(len(self._layers), 'layer')} are"
        raise UnknownName(f"layer {name!r} is not recorded here ({known}){nearest(name, self._layers)}")

    def _own_name(self, layer: Any) -> str | None:
        return None if self._name_of is None else self._name_of(layer)

    def __getstate__(self) -> dict[str, Any]:
        # Stored without the model, so layer objects cannot be keys.
        return {**vars(self), "_name_of": None}

    def calls(self, name: Key) -> list[Any]:
        """The output of each call of a layer, in call order; empty for a layer that did not run.

        Args:
            name: its key, own name or alias, its position from 0, or the model's own layer object.

        Returns:
            Native arrays, or the tuples and dicts of them that the layer returned.
        """
        return list(self._calls.get(self.layer(name).name, ()))

    def __getitem__(self, name: Key) -> Any:
        calls, name = self.calls(name), self.layer(name).name if not isinstance(name, str) else name
        if not calls:
            raise InvalidInput(f"layer {name!r} has not run: call the model inside the context first")
        if len(calls) > 1:
            raise InvalidInput(
                f"layer {name!r} ran {counted(len(calls), 'time')}: choose one of .calls({name!r}), such as "
                f".calls({name!r})[-1]"
            )
        return calls[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            name = name.name if isinstance(name, Layer) else self._own_name(name)
        return any(name in (key, layer.name, *layer.aliases) for key, layer in self._layers.items())

    def axes(self, name: Key) -> str | None:
        """One letter per dimension of the layer's output, as in :class:`agnostic.layers.Layer`; None if not known.

        Args:
            name: its key, own name or alias, its position from 0, or the model's own layer object.

        Returns:
            Such as ``"NCHW"``.
        """
        return self.layer(name).axes

    def check(self, terms: Mapping[str, Any], *, kind: str = "loss term") -> None:
        """Raise an error for the first of several arrays that is not finite, such as the terms of a loss.

        Args:
            terms: native arrays or numbers by name, in the order in which they were computed.
            kind: what the arrays are, for the error message.

        Raises:
            NonFinite: names the first that is not finite.
        """
        for name, x in terms.items():
            values = self._to_numpy(x)
            if any(count(values)):
                raise error(kind, name, values)

    def numpy(self) -> Activations:
        """The same record with NumPy arrays, detached and in main memory; bfloat16 becomes float32.

        Returns:
            A new record.
        """
        calls = {x.name: [self._to_numpy(call) for call in self.calls(x.name)] for x in self._layers.values()}
        return Activations(self._layers, calls, _same, self.about, self._name_of)

    def both(self, name: str) -> Iterator[tuple[Any, Any]]:
        """The output of each call of a layer, native and with NumPy arrays in place of native ones.

        Args:
            name: its key, own name or alias, its position from 0, or the model's own layer object.

        Returns:
            An iterator of (native, NumPy).
        """
        return ((call, self._to_numpy(call)) for call in self.calls(name))

    def save(self, path: str | os.PathLike[str], note: Mapping[str, Any] | None = None) -> None:
        """Write the record to a safetensors file, which :func:`agnostic.taps.open` reads without any framework.

        The file has every call of every layer, its axes, the model's name, and the shapes of the inputs. Dtypes are
        kept; those that the format lacks, such as 8-bit floats, are written as float32, as :meth:`numpy` converts them.

        Args:
            path: the file. An existing file is replaced once the new one is complete.
            note: your own remarks as JSON values, such as ``{"photo": "cat.jpg"}``.

        Raises:
            InvalidInput: a layer returned something other than arrays, numbers and strings, or the file cannot be
                written.
        """
        calls = {layer.name: self.both(layer.name) for layer in self._layers.values()}
        format.write(path, self._layers, calls, self.about, note)

    def rekeyed(
        self,
        layers: Mapping[str, Layer],
        about: Mapping[str, Any] | None = None,
        name_of: Callable[[Any], str | None] | None = None,
    ) -> Activations:
        """The same record under other keys; it grows with this one.

        Args:
            layers: by their new keys.
            about: in place of this record's; None: as it is.
            name_of: in place of this record's; None: as it is.

        Returns:
            A record over the same arrays.
        """
        chosen = {key: self.layer(x.name) for key, x in layers.items()}
        return Activations(
            chosen, self._calls, self._to_numpy, self.about if about is None else about, name_of or self._name_of
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({display.listed(f'{key}: {shape}' for key, shape in self._shapes())})"

    def _repr_html_(self) -> str:
        rows = [(key, self.layer(key).kind, shape, self.axes(key) or "-") for key, shape in self._shapes()]
        title = f"What {counted(len(rows), 'layer')} of {self.about.get('model', 'a model')} returned"
        return display.table(title, ("layer", "kind", "shape", "axes"), rows)

    def _shapes(self) -> Iterator[tuple[str, str]]:
        """Each key with the shape of its layer's output, as text."""
        return ((key, _describe(self.calls(key))) for key in self)


def _same(x: Any) -> Any:
    return x


def _describe(calls: Sequence[Any]) -> str:
    if not calls:
        return "not run"
    try:
        one = str(tuple(calls[0].shape))
    except (AttributeError, TypeError, RuntimeError):  # not an array, or one without a single shape (nested tensors)
        one = type(calls[0]).__name__
    return one if len(calls) == 1 else f"{len(calls)} x {one}"
