"""Code that fixes what a comparison found; see :mod:`agnostic.contracts.fixes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agnostic.contracts.fixes import SourceForm

_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "batch_norm": {"epsilon": "eps"},
    "layer_norm": {"epsilon": "eps"},
    "group_norm": {"epsilon": "eps", "groups": "num_groups"},
    "leaky_relu": {"negative_slope": "negative_slope"},
    "elu": {"alpha": "alpha"},
    "convolution": {"stride": "stride", "padding": "padding", "dilation": "dilation", "groups": "groups"},
    "average_pool": {"count_padding": "count_include_pad", "ceil_mode": "ceil_mode", "padding": "padding",
                     "stride": "stride", "kernel": "kernel_size"},
    "max_pool": {"ceil_mode": "ceil_mode", "padding": "padding", "stride": "stride", "kernel": "kernel_size"},
    "resize_bilinear": {"align_corners": "align_corners"},
    "resize_bicubic": {"align_corners": "align_corners"},
    "softmax": {"axis": "dim"},
    "gelu": {"approximate": "approximate"},
}  # fmt: skip
"""What modules call the attributes of their operators, by operator."""


def setting(layer: str, kind: str, operator: str, name: str, value: Any, *, line: bool = False) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.setting`."""
    if line:
        return None
    if (operator, name) == ("batch_norm", "training"):
        return f"model.get_submodule({layer!r}).{'train' if value else 'eval'}()"
    attribute = _ATTRIBUTES.get(operator, {}).get(name)
    if name == "padding" and attribute is not None:
        if any(low != high for low, high in value):
            return None
        value = tuple(low for low, _ in value)
    return None if attribute is None else f"model.get_submodule({layer!r}).{attribute} = {value!r}"


def weight(role: str, name: str, undo: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.weight`."""
    return f"p = model.get_{role}({name!r}).data; p.copy_({undo.replace('p.', 'p.clone().', 1)})"


def copied(to: tuple[str, str], source: tuple[str, str]) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.copied`."""
    return f"model.get_{to[0]}({to[1]!r}).data.copy_(other.get_{source[0]}({source[1]!r}).data)"


def reading(model: str, role: str, name: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.reading`."""
    return f"{model}.get_{role}({name!r}).detach().cpu().double().numpy()"


def writing(role: str, name: str, array: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.writing`."""
    return f"model.get_{role}({name!r}).data.copy_(torch.tensor({array}.copy()))"


def settings(layer: str, source: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.settings`."""
    plain = "isinstance(v, bool | int | float | str | tuple | list) or isinstance(v, dict) and k[0] != '_'"
    return (
        f"own, right = vars(model.get_submodule({layer!r})), vars(other.get_submodule({source!r}))\n"
        f"own.update({{k: v for k, v in right.items() if k != 'training' and ({plain})}})"
    )


def layer(name: str, source: str | None) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.layer`."""
    if source is None:
        return f"model.set_submodule({name!r}, torch.nn.Identity())"
    return f"model.set_submodule({name!r}, copy.deepcopy(other.get_submodule({source!r})))"


def spelled(kind: str) -> SourceForm:
    """See :meth:`agnostic.contracts.fixes.Fixes.spelled`."""
    return SourceForm()


def packages() -> tuple[str, ...]:
    """See :meth:`agnostic.contracts.fixes.Fixes.packages`."""
    return ("torch",)


def parameters(name: str) -> tuple[str, ...]:
    """See :meth:`agnostic.contracts.fixes.Fixes.parameters`."""
    return ()


def keyword(kind: str, name: str) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.keyword`."""
    return None


def padding(
    name: str, kernel: Sequence[int], attributes: Mapping[str, Any], pairs: Sequence[tuple[int, int]]
) -> str | None:
    """See :meth:`agnostic.contracts.fixes.Fixes.padding`."""
    return None
