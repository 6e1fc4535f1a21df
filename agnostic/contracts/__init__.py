"""What a backend can do: one small protocol per capability, each in one file.

A backend implements a protocol by a module with these functions, which lies in its package under the same name
(:mod:`agnostic.contracts.taps` is implemented by ``agnostic_torch.taps`` and ``agnostic_keras.taps``), or by an object
of a class that inherits from the protocol, where a method that may return None need not be there. It names the module
or the object in its :class:`agnostic.registry.Registration`; docs/backends.md writes a backend from beginning to end.
"""

from agnostic.contracts.ascent import Ascents
from agnostic.contracts.augmentation import Augmentations
from agnostic.contracts.calls import Calls
from agnostic.contracts.data import Data
from agnostic.contracts.description import Descriptions
from agnostic.contracts.devices import Devices
from agnostic.contracts.doctor import Doctor
from agnostic.contracts.fixes import Fixes
from agnostic.contracts.gradients import Gradients
from agnostic.contracts.guards import Guards
from agnostic.contracts.inputs import Inputs
from agnostic.contracts.layers import Layers
from agnostic.contracts.learning import Learning
from agnostic.contracts.models import Models
from agnostic.contracts.ops import Operations
from agnostic.contracts.optimizers import Optimizers
from agnostic.contracts.program import Programs
from agnostic.contracts.taps import Taps
from agnostic.contracts.transfer import Transfers
from agnostic.contracts.weights import Weights

__all__ = [
    "Ascents",
    "Augmentations",
    "Calls",
    "Data",
    "Descriptions",
    "Devices",
    "Doctor",
    "Fixes",
    "Gradients",
    "Guards",
    "Inputs",
    "Layers",
    "Learning",
    "Models",
    "Operations",
    "Optimizers",
    "Programs",
    "Taps",
    "Transfers",
    "Weights",
]
