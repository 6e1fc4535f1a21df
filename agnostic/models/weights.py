"""Whether a set of weights fits a model: entries by name and shape, whatever the framework."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from agnostic.errors import InvalidWeights
from agnostic.text import counted

Shape = tuple[int, ...]

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name of the model that they wrap."""


def fit(expected: Mapping[str, Shape], given: Mapping[str, Shape], *, optional: Collection[str] = ()) -> dict[str, str]:
    """Which given entry belongs to which of the model's.

    A prefix that a wrapper put before every given name is understood, where no given name fits as it is.

    Args:
        expected: the shape of every entry of the model, by name.
        given: the same of the weights.
        optional: last components of names that may be missing or left over, such as ``"num_batches_tracked"``.

    Returns:
        The given name by the expected name.

    Raises:
        InvalidWeights: entries are missing, unexpected, or of another shape; names the first of them.
    """
    names = _unwrapped(expected, given)
    counted = {name for name in {*expected, *names} if name.rpartition(".")[2] not in optional}
    missing = [name for name in expected if name in counted and name not in names]
    unexpected = [name for name in names if name in counted and name not in expected]
    if missing or unexpected:
        raise InvalidWeights(_misfit(len(expected), missing, unexpected))
    pairs = {name: names[name] for name in expected if name in names}
    wrong = [name for name, theirs in pairs.items() if given[theirs] != expected[name]]
    if wrong:
        first = wrong[0]
        others = f" and {len(wrong) - 1} other entries differ as well" if len(wrong) > 1 else ""
        raise InvalidWeights(
            f"entry {first!r} has the shape {given[pairs[first]]} and the model's has {expected[first]}{others}: "
            "the weights must come from the same architecture with as many classes"
        )
    return pairs


def check_types(expected: Collection[str], given: Collection[str], pairs: Mapping[str, str]) -> None:
    """Refuse to drop imaginary parts.

    Args:
        expected: the model's entries that are complex.
        given: those of the weights.
        pairs: the given name by the expected name, from :func:`fit`.

    Raises:
        InvalidWeights: complex numbers for an entry that is real.
    """
    for ours, theirs in pairs.items():
        if theirs in given and ours not in expected:
            raise InvalidWeights(
                f"entry {theirs!r} is complex and the model's is real, so its imaginary part would be lost: save the "
                "part that is meant"
            )


def _unwrapped(expected: Mapping[str, Shape], given: Mapping[str, Shape]) -> dict[str, str]:
    """The given names by what they are without their wrapper's prefix."""
    names = {name: name for name in given}
    while names and expected.keys().isdisjoint(names):
        prefix = next((wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in names)), None)
        if prefix is None:
            break
        names = {name.removeprefix(prefix): theirs for name, theirs in names.items()}
    return names


def _misfit(total: int, missing: list[str], unexpected: list[str]) -> str:
    said = []
    if missing:
        said.append(
            f"{len(missing)} of the model's {counted(total, 'entry', 'entries')} are missing, such as {missing[0]!r}"
        )
    if unexpected:
        # The one that the first missing entry was most likely meant to be.
        close = difflib.get_close_matches(missing[0], unexpected, n=1, cutoff=0.5) if missing else []
        said.append(
            f"the model does not know {counted(len(unexpected), 'entry', 'entries')}, such as "
            f"{(close or unexpected)[0]!r}"
        )
    return f"{' and '.join(said)}: the weights must come from the same architecture"
