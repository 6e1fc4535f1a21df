"""The verb that reads a model."""

from __future__ import annotations

from typing import Any

from agnostic.contracts.program import PROGRAM
from agnostic.errors import InvalidInput
from agnostic.models.inputs import Size, examples
from agnostic.program import custom
from agnostic.program.nodes import Program
from agnostic.program.passes import simplified
from agnostic.registry import Model, backend_of


def program(model: Model, inputs: Any = None, *, size: Size | None = None, channels_in: int | None = None) -> Program:
    """Read what a model computes: its operators, with their attributes, operands, layers and lines of source.

    The model is traced once without data; nothing is computed. Values that depend on constants alone are folded, and
    identities are removed. A write in place becomes an operator with a new value.

    Args:
        model: a native model, in the mode that it is in: dropout and batch norm are read as they are set.
        inputs: what the model is called with, as in :func:`agnostic.capture`; shapes and types matter, numbers do not.
            None: images or other inputs of the shape that the model declares, that its card says, or that is found
            by running it; see :mod:`agnostic.models.inputs`.
        size: height and width of the images, one number or two; None: the model's own.
        channels_in: channels of the images, where the model does not tell.

    Returns:
        The program; ``print`` it to read it, and :func:`agnostic.program.evaluate.run` computes it in float64.

    Raises:
        InvalidInput: the model branches on values, an operator has no translation, or the backend cannot read
            programs; says which, in which layer, and on which line.

    Example:
        >>> import torch
        >>> print(program(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.zeros(2, 4)))
        Sequential (torch): 2 operators, 15 parameters, 54 floating-point operations
        input input: 2 x 4 float32
        0: Linear
          %1 = linear(input, 0.weight, 0.bias)  2 x 3 float32
        1: ReLU
          %2 = activation(%1) function=relu     2 x 3 float32
        output: %2
    """
    backend = backend_of(model)
    if inputs is None:
        inputs = examples(backend, model, size=size, channels=channels_in)
    elif size is not None or channels_in is not None:
        raise InvalidInput("inputs have a size and channels of their own: leave size and channels_in out")
    known = backend[PROGRAM].program(model, inputs)
    missing = custom.unknown(known)
    if missing:
        fix = "a port can leave them open or be told what they are (agnostic.port, stubs and operators)"
        raise InvalidInput(custom.refusal(known.name, [custom.sentence(node) for node in missing], fix))
    return simplified(known)
