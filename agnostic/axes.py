"""What the dimensions of an array stand for, followed from operator to operator.

Each dimension is made of axes: one, or several in a row where dimensions were flattened into one, or a part of one
where a dimension was cut in two. An axis has a letter (N batch, C channel, H height, W width, D depth, L positions in
a row), or none while nothing has told it. An operator that knows one, such as a convolution, tells it of its input, and
so of all arrays from which the input came and that come from it. What nothing tells stays unknown.

A backend says which operator does what (:mod:`agnostic_torch.axes`); this file says what follows for the letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

POSITIONS = {0: "", 1: "L", 2: "HW", 3: "DHW"}
"""The letters of so many dimensions of positions."""


class Letter:
    """The letter of an axis, and of all that are known to have the same; told once, at whatever time."""

    __slots__ = ("_known", "_of", "_same")

    def __init__(self, known: str | None = None, of: Dimension | None = None) -> None:
        """Known, or as that of a dimension, or not known yet."""
        self._known = known
        self._of = of
        self._same: Letter | None = None

    def _root(self) -> Letter:
        letter = self
        while letter._same is not None:
            letter = letter._same
        return letter

    @property
    def known(self) -> str | None:
        """The letter; None while it is unknown."""
        root = self._root()
        return root._known if root._known is not None or root._of is None else letter_of(root._of)

    def tell(self, letter: str) -> None:
        """It is this one, unless it is known already; positions in a row that were cut may be a height and a width."""
        root = self._root()
        if root.known is None or (root._known is None and root.known == "L" and letter in "DHW"):
            root._known = letter

    def same_as(self, other: Letter) -> None:
        """Two axes are one, as the terms of a sum show."""
        mine, its = self._root(), other._root()
        if mine is its or mine._of is not None or its._of is not None:
            return
        if its.known is None:
            its._same = mine
        elif mine.known is None:
            mine._same = its


class NamedAxis:
    """An axis, or a part of one.

    Attributes:
        size: its length.
        letter: what it stands for.
        free: whether its parts may stand for other things than it, as a product's features for those of an image.
        minor: False for the outer part of an axis that was cut in two (which block), True for an inner one (where in
            the block); None for a whole axis.
    """

    __slots__ = ("_cuts", "free", "letter", "minor", "size", "whole")

    def __init__(self, size: int, letter: Letter | None = None, minor: bool | None = None) -> None:
        self.size = size
        self.letter = Letter() if letter is None else letter
        self.minor = minor
        self.free = False
        self.whole: tuple[NamedAxis, tuple[NamedAxis, NamedAxis]] | None = None
        self._cuts: dict[int, tuple[NamedAxis, NamedAxis]] = {}

    def cut(self, outer: int) -> tuple[NamedAxis, NamedAxis]:
        """In two, the outer part of the given length; the same two each time."""
        if outer not in self._cuts:
            row = self.letter.known == "L"
            first, second = (Letter() if self.free else Letter(of=(self,)) if row else self.letter for _ in range(2))
            parts = NamedAxis(outer, first, bool(self.minor)), NamedAxis(self.size // outer, second, True)
            for part in parts:
                part.free = self.free
                part.whole = self, parts
            self._cuts[outer] = parts
        return self._cuts[outer]

    @property
    def parts(self) -> tuple[NamedAxis, ...]:
        """The smallest parts that it was cut into, the outermost first."""
        for first, second in self._cuts.values():
            return first.parts + second.parts
        return (self,)


Dimension = tuple[NamedAxis, ...]
"""The axes that one dimension of an array is made of, the outermost first."""
Dimensions = tuple[Dimension, ...]


def length(dimension: Dimension) -> int:
    """Of a dimension."""
    product = 1
    for axis in dimension:
        product *= axis.size
    return product


def new(size: int, letter: str | None = None) -> Dimension:
    """A dimension that comes from no other."""
    return (NamedAxis(size, Letter(letter)),)


def unknown(shape: Iterable[int]) -> Dimensions:
    """Dimensions of which nothing is known yet."""
    return tuple(new(int(size)) for size in shape)


def resized(dimension: Dimension, size: int) -> Dimension:
    """The same in another length, as after a pool, a slice or a concatenation."""
    if length(dimension) == size:
        return dimension
    if len(dimension) == 1:
        return (NamedAxis(size, dimension[0].letter, dimension[0].minor),)
    return (NamedAxis(size, Letter(of=dimension)),)


# Letters -------------------------------------------------------------------------------------------------------------
def letter_of(dimension: Dimension) -> str | None:
    """The letter of a dimension; None where it is unknown, or no letter stands for what was flattened into it."""
    found = [(axis.letter.known, axis) for axis in dimension]
    batch = [known == "N" for known, _ in found]
    if any(batch):
        return (
            "N" if all(is_batch or axis.size == 1 for is_batch, (_, axis) in zip(batch, found, strict=True)) else None
        )
    # A length of one says nothing beside others.
    found = [(known, axis) for known, axis in found if axis.size != 1] or found[:1]
    letters = {known for known, _ in found}
    if len(letters) == 1:
        return letters.pop()
    if None in letters:
        return None
    if "C" not in letters:
        return "L"
    rest = {known for known, axis in found if known != "C" and not axis.minor}
    if len(rest) == 1 and all(axis.minor is not None for known, axis in found if known == "C"):
        return rest.pop()  # channels moved into positions, as a pixel shuffle does
    return "C"


def letters(dimensions: Dimensions) -> str | None:
    """One letter for each dimension of an array; None where one is unknown, or two have the same."""
    found = [letter_of(dimension) for dimension in dimensions]
    if len(found) == 2 and found[0] == "N" and found[1] is None:
        found[1] = "C"  # all numbers of a sample in one row are its features
    if len(found) == 3 and None in found and {"N", "C"} < {*found}:
        place = found.index(None)
        if length(dimensions[place]) == 1:
            found[place] = "L"  # a row of one position, such as a class token that was taken out of its row
    if None in found or len(set(found)) != len(found):
        return None
    return "".join(filter(None, found))


def tell(dimensions: Dimensions, names: str) -> None:
    """What an operator knows of the array that it was given, one letter for each dimension; known ones stay."""
    known = {letter_of(dimension) for dimension in dimensions}
    for dimension, name in zip(dimensions, names, strict=True):
        if name not in known and len(dimension) == 1:
            dimension[0].letter.tell(name)


def assume(dimensions: Dimensions, *, integers: bool = False, channels_last: bool = False) -> None:
    """The letters of a model's input that no operator determines.

    Where the channels are known, the batch comes first and the rest are positions. Where nothing is known, two
    dimensions are a batch of features, or of token numbers, and four and five a batch of images and of volumes in the
    order in which the framework's convolutions take them.
    """
    found = [letter_of(dimension) for dimension in dimensions]
    if integers:
        tell(dimensions, ("N" + POSITIONS.get(len(found) - 1, ""))[: len(found)].ljust(len(found), "?"))
    elif not any(found):
        names = {1: "N", 2: "NC", 4: "NHWC" if channels_last else "NCHW", 5: "NDHWC" if channels_last else "NCDHW"}.get(
            len(found)
        )
        if names is not None:
            tell(dimensions, names)
    elif "C" in found:
        if "N" not in found and found[0] is None:
            tell(dimensions[:1], "N")
        rest = [d for d in dimensions if letter_of(d) is None]
        if len(rest) in POSITIONS and not set(found) & set("LHWD"):
            tell(tuple(rest), POSITIONS[len(rest)])


# Operators -----------------------------------------------------------------------------------------------------------
def together(given: Sequence[Dimensions], shape: Sequence[int]) -> Dimensions:
    """Of a result whose numbers come from those at the same place of all operands, which are spread to its shape."""
    found: list[Dimension] = []
    for place, size in enumerate(shape):
        back = len(shape) - place
        here = [x[len(x) - back] for x in given if len(x) >= back]
        full = [x for x in here if length(x) == size] or here
        best = next((x for x in full if letter_of(x) is not None), full[0] if full else None)
        if best is None:
            found.append(new(size))
            continue
        for other in full:
            if len(other) == len(best) == 1 and other[0].size == best[0].size:
                best[0].letter.same_as(other[0].letter)
        found.append(resized(best, size))
    return tuple(found)


def concatenated(given: Sequence[Dimensions], shape: Sequence[int]) -> Dimensions | None:
    """Of a result of arrays one after the other along one of their dimensions."""
    if any(len(x) != len(shape) for x in given):
        return None
    found = []
    for place, size in enumerate(shape):
        here = [x[place] for x in given]
        best = next((x for x in here if letter_of(x) is not None), here[0])
        for other in here:
            if len(other) == len(best) == 1:
                best[0].letter.same_as(other[0].letter)
        found.append(resized(best, int(size)))
    return tuple(found)


def all_resized(dimensions: Dimensions, shape: Sequence[int]) -> Dimensions | None:
    """Each dimension in its length of a result with as many; None where there are not as many."""
    if len(dimensions) != len(shape):
        return None
    return tuple(resized(d, int(size)) for d, size in zip(dimensions, shape, strict=True))


def reshaped(dimensions: Dimensions, shape: Sequence[int]) -> Dimensions | None:
    """After a reshape: dimensions cut in two or flattened into one; None where neither describes it."""
    left = [axis for dimension in reversed(dimensions) for axis in reversed(dimension)]
    if any(axis.size == 0 for axis in left):
        return None  # of an empty batch the lengths tell nothing
    found = []
    for size in shape:
        taken, missing = [], int(size)
        if size == 1:
            taken = [left.pop()] if left and left[-1].size == 1 else [NamedAxis(1)]
        while missing > 1:
            if not left:
                return None
            axis = left.pop()
            if missing % axis.size and axis.size % missing == 0:
                axis, rest = axis.cut(missing)
                left.append(rest)
            elif missing % axis.size:
                return None
            taken.append(axis)
            missing //= axis.size
        found.append(_joined(taken))
    return tuple(found) if all(axis.size == 1 for axis in left) else None


def _joined(axes: Iterable[NamedAxis]) -> Dimension:
    """In a row; parts of one axis that are side by side as they were are that axis again."""
    found: list[NamedAxis] = []
    for axis in axes:
        if axis.size == 1 and found and axis.letter.known is None:
            continue
        found.append(axis)
        while (whole := found[-1].whole) is not None and tuple(found[-2:]) == whole[1]:
            found[-2:] = [whole[0]]
    return tuple(found)


def mixed(dimension: Dimension, others: Iterable[Dimension], size: int) -> Dimension:
    """What a product with weights puts in the place of a dimension: channels, and an unknown one was channels as well.

    A product over positions of an array that has channels in another dimension makes positions.
    """
    letter = letter_of(dimension)
    elsewhere = any(axis.letter.known == "C" for other in others for axis in other)
    if letter is None and len(dimension) == 1 and not elsewhere:
        dimension[0].letter.tell("C")
        letter = letter_of(dimension)
    if letter == "N" or (letter is None and elsewhere):
        return new(size)
    return new(size, letter if elsewhere and letter != "C" else "C")


def product(first: Dimensions | None, second: Dimensions | None, shape: Sequence[int]) -> Dimensions | None:
    """Of a matrix product over the last dimension of the first and the last but one of the second.

    Args:
        first: its dimensions, at least two; None for weights.
        second: the same.
        shape: of the result.
    """
    if first is None and second is None:
        return None
    batch = together([x[:-2] for x in (first, second) if x is not None], shape[:-2])
    if first is not None and second is not None:
        return (*batch, first[-2], second[-1])
    if first is not None:
        return (*batch, first[-2], mixed(first[-1], first[:-1], shape[-1]))
    assert second is not None
    return (*batch, mixed(second[-2], (*second[:-2], second[-1]), shape[-2]), second[-1])


def convolved(given: Dimensions | None, shape: Sequence[int], names: str) -> Dimensions:
    """Of a convolution.

    Args:
        given: of what it was given; None where that is not known.
        shape: of its result.
        names: the letters in its layout, such as ``"NCHW"``.
    """
    if given is None:
        return tuple(new(int(size), name) for size, name in zip(shape, names, strict=True))
    tell(given, names)
    place = names.index("C")
    others = (*given[:place], *given[place + 1 :])
    found = [resized(d, int(size)) for d, size in zip(given, shape, strict=True)]
    found[place] = mixed(given[place], others, int(shape[place]))
    return tuple(found)


def einsum(equation: str, operands: Sequence[Dimensions | None], shape: Sequence[int]) -> Dimensions | None:
    """Of a sum of products in Einstein's notation; None where the equation leaves dimensions unnamed.

    Args:
        equation: such as ``"nlc,cd->nld"``.
        operands: of the operands; None for weights.
        shape: of the result.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    if not arrow or "." in equation:
        return None
    known: dict[str, Dimension] = {}
    weights: set[str] = set()
    for names, given in zip(left.split(","), operands, strict=True):
        if given is None:
            weights.update(names)
        else:
            for name, dimension in zip(names, given, strict=True):
                known.setdefault(name, dimension)
    gone = [dimension for name, dimension in known.items() if name in weights and name not in right]
    others = [known[name] for name in right if name in known]
    made = [name for name in right if name not in known]
    found = []
    for name, size in zip(right, shape, strict=True):
        if name in known:
            found.append(resized(known[name], int(size)))
        elif len(made) == len(gone) == 1:
            found.append(mixed(gone[0], others, int(size)))
        else:
            # Channels made of several dimensions, or several of them: heads, and the channels of each.
            found.append(new(int(size), "C" if made else None))
    return tuple(found)
