"""Models of :mod:`tests.compare.edited`, broken by an edit of their source; the fix is applied as it is printed."""

from __future__ import annotations

import copy
import difflib
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import agnostic as ag
from tests.compare.mutations import said

FOLDER = Path(__file__).parent / "edited"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"))


@dataclass(frozen=True)
class Edited:
    """A model and its edited copy.

    Attributes:
        name: of the model, and of the edit.
        mistakes: keys that are right; none for a correct pair.
        a, b, inputs: for :func:`agnostic.compare`.
        files: A's source and B's.
    """

    name: str
    mistakes: tuple[str, ...]
    a: nn.Module
    b: nn.Module
    inputs: Any
    files: tuple[Path, Path]


def module_of(path: Path) -> Any:
    """A file as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"edited_{path.stem}_{abs(hash(path))}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def network(path: Path) -> nn.Module:
    """The model of a file, with the weights that its constructor draws from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module_of(path).Net().eval()


def with_own_weights(model: nn.Module) -> nn.Module:
    """No scale is 1 and no offset 0, where two mistakes look the same."""
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if p.ndim < 2:
            positive = name.endswith(("weight", "gamma", "scale"))
            drawn = torch.rand if positive else torch.randn
            p.data.copy_(drawn(p.shape, generator=generator) * (1.0 if positive else 0.3) + (0.4 if positive else 0.0))
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand(buffer.shape, generator=generator) * 0.5 + 0.05)
    return model


def _with_weights_of(a: nn.Module, path: Path) -> nn.Module:
    b = network(path)
    own = b.state_dict()
    alike = {k: v for k, v in a.state_dict().items() if k in own and own[k].shape == v.shape}
    b.load_state_dict(alike, strict=False)
    return b


def edited(name: str, folder: Path, *, faults: bool, chosen: Sequence[int] | None = None) -> Iterator[Edited]:
    """The edits of a model.

    Args:
        name: of the model.
        folder: for the edited files.
        faults: its mistakes; else the correct pairs.
        chosen: of which edits, by number; None: all.
    """
    source = FOLDER / f"{name}.py"
    text = source.read_text(encoding="utf-8").partition("\nFAULTS = ")[0]
    module = importlib.import_module(f"tests.compare.edited.{name}")
    edits = module.FAULTS if faults else module.CORRECT
    for k in range(len(edits)) if chosen is None else chosen:
        title, old, new, *keys = edits[k]
        assert old in text, f"{name} has no {old!r}"
        path = folder / f"{name}_{'fault' if faults else 'correct'}_{k}.py"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        a = with_own_weights(network(source))
        inputs = module.inputs(np.random.default_rng(3))
        mistakes = tuple(keys[0].split()) if keys else ()
        yield Edited(f"{name}: {title}", mistakes, a, _with_weights_of(a, path), inputs, (source, path))


# What is said --------------------------------------------------------------------------------------------------------
def judged(case: Edited) -> dict[str, Any]:
    """Whether a mistake was seen, located, named and proven, and whether the fix that is printed removes it."""
    found = said(case, lambda first, best: _is_there(case, first, best))
    return {**found, "fixed": is_fixed(case)}


def _is_there(case: Edited, first: Any, best: Any) -> bool:
    texts = [path.read_text(encoding="utf-8").splitlines() for path in case.files]
    near: list[set[int]] = [set(), set()]
    for tag, i, j, k, m in difflib.SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        if tag != "equal":
            near[0] |= set(range(i, j + 3))
            near[1] |= set(range(k, m + 3))
    places = (best.place_a, best.place_b) if best is not None else ()
    lines = [int(place.rpartition(":")[2] or 0) for place in places]
    if any(line in some for line, some in zip(lines, near, strict=False)):
        return True
    changed = " ".join(text[n - 1] for text, some in zip(texts, near, strict=True) for n in some if 0 < n <= len(text))
    layers = {part for name in (first.a, first.b, first.after) for part in name.partition(" (call")[0].split(".")}
    return any(re.search(rf"\b{re.escape(part)}\b", changed) for part in layers if part and not part.isdigit())


def is_fixed(case: Edited) -> bool:
    """Apply all fixes that a report prints, patches first, and compare again."""
    found = ag.compare(case.a, case.b, case.inputs)
    fixes = list(dict.fromkeys(x.findings[0].fix for x in found.divergences if x.findings))
    patches = [fix for fix in fixes if fix.startswith("--- ")]
    model = copy.deepcopy(case.b)
    if patches:
        path = case.files[1].with_name(f"{case.files[1].stem}_fixed.py")
        path.write_text(patched(case.files[1].read_text(encoding="utf-8"), patches), encoding="utf-8")
        model = _with_weights_of(case.b, path)
    for fix in fixes:
        if fix not in patches:
            if not fix or fix.startswith("# "):
                return False
            exec(fix, {"model": model, "other": case.a, "torch": torch, "copy": copy, "ag": ag})  # noqa: S102 - our own
    return bool(ag.compare(case.a, model, case.inputs).same)


_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")


def patched(text: str, patches: Sequence[str]) -> str:
    """A file with unified diffs of it applied."""
    lines = text.split("\n")
    hunks: dict[int, tuple[list[str], list[str]]] = {}
    for patch in patches:
        for hunk in re.split(r"(?m)^(?=@@ )", patch)[1:]:
            head, *body = hunk.rstrip("\n").split("\n")
            match = _HUNK.match(head)
            assert match is not None
            start = int(match[1]) - (match[2] != "0")
            hunks[start] = [x[1:] for x in body if x[:1] != "+"], [x[1:] for x in body if x[:1] != "-"]
    for start, (before, after) in sorted(hunks.items(), reverse=True):
        assert lines[start : start + len(before)] == before, f"{os.linesep.join(before)} does not stand at {start + 1}"
        lines[start : start + len(before)] = after
    return "\n".join(lines)
