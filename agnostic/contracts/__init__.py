"""What a backend can do: one small protocol per capability, each in one file.

A backend implements a protocol by a module with these functions, in its package under the same name
(:mod:`agnostic.contracts.taps` is implemented by ``agnostic_torch.taps`` and ``agnostic_keras.taps``), or by an object
of a class that inherits from the protocol, where a method that may return None is optional. It names the module
or the object in its :class:`agnostic.registry.Registration`; docs/backends.md explains how to write a backend.
"""

from typing import TYPE_CHECKING, Any

from agnostic.contracts.ascent import ASCENT, Ascents
from agnostic.contracts.attribution import ATTRIBUTION, Attributions
from agnostic.contracts.augmentation import AUGMENTATION, Augmentations
from agnostic.contracts.calls import CALLS, Calls
from agnostic.contracts.capability import Capability
from agnostic.contracts.copies import COPIES, Copies
from agnostic.contracts.data import DATA, Data
from agnostic.contracts.description import DESCRIPTION, Descriptions
from agnostic.contracts.devices import DEVICES, Devices
from agnostic.contracts.doctor import DOCTOR, Doctor
from agnostic.contracts.ensembles import ENSEMBLES, Ensembles
from agnostic.contracts.fixes import FIXES, Fixes
from agnostic.contracts.gradients import GRADIENTS, Gradients
from agnostic.contracts.guards import GUARDS, Guards
from agnostic.contracts.inputs import INPUTS, ModelInputs
from agnostic.contracts.layers import LAYERS, LayerTree
from agnostic.contracts.learning import LEARNING, LearningSteps
from agnostic.contracts.models import MODELS, Models
from agnostic.contracts.ops import OPS, Operations
from agnostic.contracts.optimizers import OPTIMIZERS, Optimizers
from agnostic.contracts.ported import PORTED, PortedModels
from agnostic.contracts.program import PROGRAM, Programs
from agnostic.contracts.recording import RECORDING, Recordings
from agnostic.contracts.taps import TAPS, Taps
from agnostic.contracts.transfer import TRANSFER, Transfers
from agnostic.contracts.weights import WEIGHTS, Weights
from agnostic.contracts.writer import WRITER, SourceWriter
from agnostic.renamed import old_names

__all__ = [
    "ALL",
    "Ascents",
    "Attributions",
    "Augmentations",
    "Calls",
    "Copies",
    "Data",
    "Descriptions",
    "Devices",
    "Doctor",
    "Ensembles",
    "Fixes",
    "Gradients",
    "Guards",
    "LayerTree",
    "LearningSteps",
    "ModelInputs",
    "Models",
    "Operations",
    "Optimizers",
    "PortedModels",
    "Programs",
    "Recordings",
    "SourceWriter",
    "Taps",
    "Transfers",
    "Weights",
]

ALL: tuple[Capability[Any], ...] = (
    ASCENT,
    ATTRIBUTION,
    AUGMENTATION,
    CALLS,
    COPIES,
    DATA,
    DESCRIPTION,
    DEVICES,
    DOCTOR,
    ENSEMBLES,
    FIXES,
    GRADIENTS,
    GUARDS,
    INPUTS,
    LAYERS,
    LEARNING,
    MODELS,
    OPS,
    OPTIMIZERS,
    PORTED,
    PROGRAM,
    RECORDING,
    TAPS,
    TRANSFER,
    WEIGHTS,
    WRITER,
)
"""Every capability that there is, by its name."""

if not TYPE_CHECKING:
    _OLD = {
        "Inputs": "ModelInputs",
        "Layers": "LayerTree",
        "Learning": "LearningSteps",
        "Ported": "PortedModels",
        "Writer": "SourceWriter",
    }
    __getattr__ = old_names(__name__, _OLD)
