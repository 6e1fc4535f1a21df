"""Files: opened only if they are regular files, written whole or not at all; images to and from disk."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from agnostic import decoding
from agnostic.arrays import describe
from agnostic.errors import AgnosticError, InvalidInput, nearest
from agnostic.temporary import temporary_folder

# The disk is full, the user's quota is used up, or the process may not write as large a file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def as_path(given: Any) -> Path:
    """The path that a user gives.

    Raises:
        InvalidInput: it is no path, or none that a file can have.
    """
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise InvalidInput(f"a path is text, such as 'photo.png', or a pathlib.Path, not {describe(given)}")
    if "\0" in os.fspath(given):
        raise InvalidInput(f"a path has no null character, and {os.fspath(given)!r} has one")
    return Path(given)


def open_regular(path: str | os.PathLike[str], error: type[AgnosticError] = InvalidInput) -> BinaryIO:
    """Open a file for reading bytes, if it is a regular file or a link to one.

    A named pipe would make the reader wait for ever, and a device may never end. What the name stands for may change
    between a check and the opening, so the check is made on the open file.

    Args:
        path: the file.
        error: the class of the error to raise.

    Returns:
        The open file, at its start; ``os.fstat(file.fileno()).st_size`` is its size in bytes.

    Raises:
        error: there is no such file, it is no regular file, or it cannot be read; one sentence that names the file.
    """
    name = repr(os.fspath(path))
    try:
        # Without O_NONBLOCK, opening a named pipe waits for a writer. It changes nothing for regular files.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise error(f"cannot read {name}: {_absence(Path(path))}") from None
    except (OSError, ValueError) as failure:
        reason = _irregular(path) or _reason(failure)
        raise error(f"cannot read {name}: {reason}") from None
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise error(f"cannot read {name}: {_not_regular(kind)}")
    return os.fdopen(descriptor, "rb")


def read_regular(path: str | os.PathLike[str], error: type[AgnosticError] = InvalidInput) -> bytes:
    """The content of a regular file: as many bytes as it has when it is opened, and no more.

    Args:
        path: the file.
        error: the class of the error to raise.

    Raises:
        error: see :func:`open_regular`.
    """
    with open_regular(path, error) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return file.read(size)
        except OSError as failure:
            raise error(f"cannot read {os.fspath(path)!r}: {_reason(failure)}") from None
        except MemoryError:
            raise error(f"cannot read {os.fspath(path)!r}: its {size} bytes do not fit into memory") from None


def shown_path(path: str) -> str:
    """A path as a message shows it: relative to the working folder if it is below it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def folders_in(path: str | os.PathLike[str]) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones (names that begin with a dot).

    Raises:
        InvalidInput: there is no such folder, it is none, or it cannot be read.
    """
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except (OSError, ValueError) as failure:
        raise _unreadable_folder(path, failure) from None


def files_below(path: str | os.PathLike[str], suffixes: tuple[str, ...], follow_links: bool = False) -> list[str]:
    """The files at any depth below a folder whose names end in one of ``suffixes``, by folders and names.

    Hidden files and folders (names that begin with a dot) are left out: editors and file managers keep copies there.

    Args:
        path: the folder.
        suffixes: in lower case, such as ``(".png", ".jpg")``.
        follow_links: look into linked folders as well.

    Returns:
        Paths relative to the folder.

    Raises:
        InvalidInput: there is no such folder, it is none, or it or a folder below it cannot be read.
    """

    def refuse(failure: OSError) -> None:
        raise _unreadable_folder(failure.filename or path, failure) from None

    found: list[str] = []
    for place, folders, names in os.walk(path, onerror=refuse, followlinks=follow_links):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        chosen = sorted(name for name in names if name.lower().endswith(suffixes) and not name.startswith("."))
        found += [os.path.relpath(os.path.join(place, name), path) for name in chosen]
    return found


def photos_below(path: str | os.PathLike[str]) -> list[str]:
    """The photos at any depth below a folder, as :func:`files_below` lists files.

    Raises:
        InvalidInput: the folder cannot be read, or there is no photo.
    """
    found = files_below(path, decoding.SUFFIXES)
    if not found:
        raise InvalidInput(f"{os.fspath(path)!r} has no photos: files that end in {', '.join(decoding.SUFFIXES)}")
    return found


def _unreadable_folder(path: str | os.PathLike[str], failure: OSError | ValueError) -> InvalidInput:
    if isinstance(failure, FileNotFoundError):
        return InvalidInput(f"the folder {os.fspath(path)!r} does not exist{_near(Path(path))}")
    if isinstance(failure, NotADirectoryError):
        return InvalidInput(f"{os.fspath(path)!r} is no folder")
    return InvalidInput(f"the folder {os.fspath(path)!r} cannot be read: {_reason(failure)}")


def _near(path: Path) -> str:
    try:
        return nearest(path.name, [entry.name for entry in os.scandir(path.parent) if entry.is_dir()])
    except OSError:
        return ""


def _irregular(path: str | os.PathLike[str]) -> str:
    """What a path that cannot be opened is, if that is the reason: a socket, or a device without a driver."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        return ""
    return "" if kind == stat.S_IFREG else _not_regular(kind)


def _not_regular(kind: int) -> str:
    return f"it is {_KINDS.get(kind, 'no regular file')}, and a regular file is expected"


def _absence(path: Path) -> str:
    """Why there is no such file, with the names that are near."""
    if path.is_symlink():
        return f"it is a broken symbolic link to {os.readlink(path)!r}"
    try:
        beside = os.listdir(path.parent)
    except OSError:
        return f"there is no folder {os.fspath(path.parent)!r}"
    return f"there is no such file{nearest(path.name, beside)}"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file that becomes ``path`` when the block ends, and vanishes if it fails.

    It has the name of ``path``, by which many writers choose their format, and lies in a temporary folder beside
    ``path``, where writers may make other files as well. Missing folders are made; a file already at ``path`` is
    replaced, at the end only. What a process that was killed left there is removed by the next one that writes there.

    Args:
        path: the file to write.

    Raises:
        InvalidInput: the folder cannot be made or written to, ``path`` is a folder, or there is no room for the file.
    """
    target = as_path(path)
    if target.is_dir():
        raise InvalidInput(f"cannot write {str(target)!r}: it is a folder, and a file name was expected")
    with ExitStack() as stack:
        # Made at once, to learn here whether the folder can be written to: permission bits do not tell (root, read-only
        # file systems), and a long computation should not end in that news.
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(temporary_folder(target.parent)) / target.name
            temporary.touch(exist_ok=False)
        except OSError as error:
            reason = _reason(error)
            raise InvalidInput(
                f"cannot write {str(target)!r}: {reason}; choose a folder that can be written to"
            ) from None
        try:
            yield temporary
            temporary.replace(target)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise InvalidInput(
                f"cannot write {str(target)!r}: {os.strerror(error.errno).lower()}; make room or choose another folder"
            ) from None


@contextmanager
def safetensors_as_os_errors() -> Iterator[None]:
    """Inside, what the system refuses safetensors is the OSError that it would be elsewhere.

    The library is written in Rust, and raises an error of its own that ends in the system's number.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)$", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def write_png(path: str | os.PathLike[str], image: npt.NDArray[Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write an image as PNG, atomically.

    Args:
        path: a file name that ends in ``.png``.
        image: (H, W, 3), (H, W, 4), (H, W, 1) or (H, W); uint8, or floating point in [0, 1].
        metadata: text by keyword, written as tEXt chunks (iTXt where Latin-1 does not suffice): how the picture was
            made. Keywords are 1 to 79 Latin-1 characters.

    Raises:
        InvalidInput: the name does not end in ``.png``, the image has another shape, type or range, or the folder
            cannot be written to.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if Path(path).suffix.lower() != ".png":
        raise InvalidInput(f"cannot write {str(path)!r} as PNG: its name must end in '.png'")
    pixels = to_uint8(np.asarray(image))
    info = PngInfo()
    for keyword, text in (metadata or {}).items():
        info.add_text(keyword, text)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=info)


def to_uint8(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(H, W) or (H, W, 3 or 4), uint8."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or 0 in image.shape:
        raise InvalidInput(f"an image has the shape (H, W), or (H, W, C) with 1, 3 or 4 channels, not {image.shape}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if not np.issubdtype(image.dtype, np.floating):
        raise InvalidInput(f"an image is uint8, or floating point in [0, 1], not {image.dtype}")
    # Written so that NaN fails as well.
    if not (image.min() >= 0 and image.max() <= 1):
        raise InvalidInput(
            f"a floating-point image must be finite and in [0, 1], not in [{image.min():.3g}, {image.max():.3g}]; "
            "divide by 255 or clip it first"
        )
    pixels: npt.NDArray[np.uint8] = np.rint(image * 255).astype(np.uint8)
    return pixels


def read_image(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read an image file, upright, as RGB.

    The orientation that a camera noted (EXIF) is applied. Grey becomes RGB, transparent pixels are seen over white, 16
    bits per channel become 8, and of an animation the first frame is taken: as :class:`agnostic.data.ImageFolder`
    reads with ``first_frame=True``.

    Args:
        path: a file in one of the formats of :data:`agnostic.decoding.FORMATS`; its content decides, not its name.

    Returns:
        (H, W, 3), uint8.

    Raises:
        InvalidInput: there is no such file, it cannot be read, or it is no whole image; names the file.
    """
    return decoded_image(read_regular(path), repr(os.fspath(path)))


def decoded_image(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """The content of an image file, as :func:`read_image` reads it.

    Args:
        data: the bytes of the file.
        name: what to call it in an error.

    Raises:
        InvalidInput: it is no whole image.
    """
    try:
        with decoding.decoder_errors():
            image = decoding.opened(data)
            turn = decoding.turn_of(image)
            image.load()
        image = decoding.in_color(image, "RGB", (255, 255, 255))
    except decoding.Flaw as flaw:
        raise InvalidInput(f"cannot read {name}: it {flaw}") from None
    return np.array(image if turn is None else image.transpose(decoding.pillow().Transpose[turn]))


def _reason(error: OSError | ValueError) -> str:
    """The reason that the system gives, without the number and the file name."""
    if isinstance(error, ValueError):  # Python says it otherwise in each release
        return str(error) if isinstance(error, UnicodeError) else "its name has a null character"
    if isinstance(error, FileExistsError):  # from mkdir
        return "a file stands where its folder should be"
    return (error.strerror or str(error)).lower()
