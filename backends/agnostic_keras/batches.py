"""The batches of an image folder as Keras' PyDataset."""

from __future__ import annotations

from typing import Any

import keras

from agnostic.data.batches import Batches, Span
from agnostic.errors import InvalidInput


class _Images(keras.utils.PyDataset):
    """What both views share: reading a batch, and reporting what was skipped at the end of an epoch."""

    def __init__(self, batches: Batches, **options: Any) -> None:
        super().__init__(**options)
        self.batches = batches
        # Keras reads some batches twice, and reads ahead in threads: a file is reported once.
        self._skipped: dict[str, str] = {}
        self._within = False

    def _read(self, epoch: int, span: Span) -> Any:
        loaded = self.batches.load(epoch, span)
        self._skipped.update(loaded.skipped)
        if not len(loaded.images):
            raise InvalidInput(
                f"no image of a whole batch can be read, and Keras takes no empty one: {loaded.skipped[0][1]}"
            )
        return loaded.batch

    def on_epoch_begin(self) -> None:
        self._within = True

    def on_epoch_end(self) -> None:
        # Keras announces the end of an epoch several times, also before the first.
        if self._within:
            self._within = False
            self.end()

    def end(self) -> None:
        """Report what the epoch skipped."""
        skipped, self._skipped = self._skipped, {}
        if skipped:
            self.batches.report(list(skipped.items()))


class ImageSequence(_Images):
    """The batches of an image folder, an epoch at a time, by index; a new order every epoch.

    Args:
        batches: what is read; its epoch is the first one. Its position does not move.
        **options: of PyDataset.

    Raises:
        InvalidInput: ``batches`` stands within an epoch.
    """

    def __init__(self, batches: Batches, **options: Any) -> None:
        if batches.position:
            raise InvalidInput(
                f"the batches stand at position {batches.position} of an epoch, and Keras' epochs have one length; "
                "keras_stream() goes on from there"
            )
        super().__init__(batches, **options)
        self._spans = batches.spans(0)
        self._epoch = batches.epoch

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> Any:
        return self._read(self._epoch, self._spans[index])

    def end(self) -> None:
        super().end()
        # Here and not at the beginning, which Keras announces when its threads read already.
        self._epoch += 1


class ImageStream(_Images):
    """The batches of an image folder from the very next sample on, epoch after epoch, without end.

    Args:
        batches: what is read; :meth:`callback` moves its position.
        **options: of PyDataset.
    """

    def __init__(self, batches: Batches, **options: Any) -> None:
        super().__init__(batches, **options)
        self._epoch, self._first = batches.epoch, batches.spans()
        self._whole = batches.spans(0)

    @property
    def num_batches(self) -> None:
        """None: there is no end."""
        return None

    def __getitem__(self, index: int) -> Any:
        return self._read(*self.place(index))

    def place(self, index: int) -> tuple[int, Span]:
        """The epoch and the span of batch ``index``."""
        if index < len(self._first):
            return self._epoch, self._first[index]
        epochs, index = divmod(index - len(self._first), len(self._whole))
        return self._epoch + 1 + epochs, self._whole[index]

    def callback(self) -> keras.callbacks.Callback:
        """A callback for one ``fit`` that moves the position of the batches with every batch that was trained on."""
        return _Position(self)


class _Position(keras.callbacks.Callback):
    def __init__(self, stream: ImageStream) -> None:
        super().__init__()
        self.stream, self.start, self.seen = stream, 0, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Keras calls once for several steps where steps_per_execution is more than 1; `batch` is the last of them.
        batches = self.stream.batches
        self.seen = self.start + batch + 1
        batches.epoch, (_, batches.position) = self.stream.place(self.seen - 1)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.start = self.seen
