"""Does a backend keep its contracts? The checks by capability; a failure says which function breaks which promise.

For example ``assert not run(Subject("tiny", net, layer="conv"))``, with a model of your own made by ``net()``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agnostic import contracts
from agnostic.registry import get_backend
from agnostic.testing import checks_arrays, checks_models, checks_port, checks_training
from agnostic.testing.subject import Broken, Subject, due

CHECKS: Mapping[str, Sequence[Callable[[Subject], None]]] = {
    **checks_models.CHECKS,
    **checks_arrays.CHECKS,
    **checks_training.CHECKS,
    **checks_port.CHECKS,
}
"""By capability: functions that raise :class:`Broken`."""


def run(subject: Subject, only: Sequence[str] | None = None) -> list[str]:
    """What is wrong with a backend: one sentence per broken promise, none if it conforms.

    Where functions of a capability are missing they are named, with what each must return, and nothing else is checked
    of it.

    Args:
        subject: what is examined.
        only: the capabilities to check, by name; None: all that the backend provides.

    Returns:
        The sentences, each with the capability and the function at fault.

    Example:
        >>> import torch
        >>> def network():
        ...     return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh()).eval()
        >>> run(Subject("torch", network, layer="0"), ["layers", "taps"])
        []
    """
    backend = get_backend(subject.backend)
    provided = [key for key in contracts.ALL if key in backend]
    failures: list[str] = []
    for key in provided if only is None else [key for key in provided if key.name in only]:
        absent = key.missing(backend.implementation(key))
        failures += [f"{key.name}: {due(key, member)}" for member in absent]
        for check in CHECKS.get(key.name, ()) if not absent else ():
            try:
                check(subject)
            except Broken as error:
                failures.append(f"{key.name}, {check.__name__}: {error}")
            except Exception as error:  # noqa: BLE001 - whatever a stranger's code raises is a failure with a name
                failures.append(f"{key.name}, {check.__name__}: {type(error).__name__}: {error}")
    return failures
