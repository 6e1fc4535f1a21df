"""Augmentation: from ranges to sampled parameters to one matrix per image.

:class:`ImageDataGenerator` has the signature and the pixels of Keras' legacy class; :class:`Augmentation` is the form
to move to: a frozen description, and parameters that depend on nothing but (seed, epoch, image index).
"""

from agnostic.augmentation.generator import ImageDataGenerator
from agnostic.augmentation.modern import Augmentation, Augmented, AugmentedDataset
from agnostic.contracts.augmentation import Parameters

__all__ = ["Augmentation", "Augmented", "AugmentedDataset", "ImageDataGenerator", "Parameters"]


def __dir__() -> list[str]:
    return sorted(__all__)
