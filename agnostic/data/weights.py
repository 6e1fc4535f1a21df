"""Weights that give classes of different sizes the same importance."""

from __future__ import annotations

from typing import Any

import numpy as np

from agnostic.checks import whole_number
from agnostic.errors import InvalidInput


def class_weights(labels: Any, classes: int | None = None) -> dict[int, float]:
    """A weight per class, n / (present classes * images of the class): the mean over all labels is 1.

    Keras takes them directly, ``model.fit(..., class_weight=weights)``; torch's losses as a tensor,
    ``CrossEntropyLoss(weight=torch.tensor(list(weights.values())))``. Example::

        >>> class_weights([0, 0, 0, 1])
        {0: 0.6666666666666666, 1: 2.0}

    Args:
        labels: (n,) class indices, integers of 0 or more: of an ``ImageFolder``, or ``iterator.classes`` of
            ``ImageDataGenerator.flow_from_directory``.
        classes: how many classes there are; None: the largest label plus 1.

    Returns:
        The weight by class index, for every class; 0 for one without images.

    Raises:
        InvalidInput: there are no labels, they are not indices, or one is not below ``classes``.

    Source: ``class_weight="balanced"`` of scikit-learn; King and Zeng, "Logistic Regression in Rare Events Data", 2001.
    """
    indices = np.asarray(labels)
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or not indices.size or indices.min() < 0:
        raise InvalidInput(
            f"labels must be class indices of 0 or more in one dimension, one per image, not {indices.dtype} of shape "
            f"{indices.shape}"
        )
    number = int(indices.max()) + 1 if classes is None else whole_number("classes", classes, int(indices.max()) + 1)
    counts = np.bincount(indices, minlength=number)
    present = int(np.count_nonzero(counts))
    return {label: len(indices) / (present * count) if count else 0.0 for label, count in enumerate(counts.tolist())}
