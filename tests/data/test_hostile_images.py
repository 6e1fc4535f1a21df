"""Image files from strangers, by every way in: no program is started, nothing waits, refusals are one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import EpsImagePlugin, Image
from typer.testing import CliRunner

from agnostic.augmentation import ImageDataGenerator
from agnostic.cli import augment, taps
from agnostic.compare.processes import photos
from agnostic.data import ImageFolder, SkippedFiles, UnreadableFile
from agnostic.errors import InvalidInput
from agnostic.files import read_image

Reader = Callable[[Path], object]


def by_dataframe(path: Path) -> object:
    table = {"filename": [str(path)]}
    return next(ImageDataGenerator().flow_from_dataframe(table, class_mode=None, validate_filenames=False))


def by_command(command: object) -> Reader:
    def read(path: Path) -> object:
        app = typer.Typer()
        command.register(app)  # type: ignore[attr-defined]
        app.callback()(lambda: None)
        given = [str(path.parent)] if command is augment else ["efficientnet_lite0", str(path), "--layer", "stem"]
        result = CliRunner().invoke(app, ["augment" if command is augment else "taps", *given])
        assert result.exception is not None, result.output
        raise result.exception

    return read


READERS: dict[str, Reader] = {
    "read_image": read_image,
    "ImageFolder": lambda path: next(iter(ImageFolder(path.parents[1]).batches())),
    "ImageFolder, by index": lambda path: ImageFolder(path.parents[1])[0],
    "flow_from_directory": lambda path: next(ImageDataGenerator().flow_from_directory(path.parents[1])),
    "flow_from_dataframe": by_dataframe,
    "compare --images": lambda path: read_image(photos(path.parent).paths[0]),
    "augment": by_command(augment),
    "taps": by_command(taps),
}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Where the only image of the only class will be."""
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    return tmp_path / "photos" / "cats" / "a.png"


@pytest.mark.parametrize("name", READERS)
def test_a_postscript_file_named_png_starts_no_program(
    name: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!{sys.executable}\nopen({str(tmp_path / 'started')!r}, 'w')\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    Image.new("RGB", (8, 8)).save(photo, "EPS")
    with pytest.raises(
        InvalidInput, match=r"cannot read '.*a\.png': it is no image of a format that is read here .*%!PS"
    ):
        READERS[name](photo)
    assert not (tmp_path / "started").exists()
    with pytest.raises(OSError), Image.open(photo) as image:  # noqa: PT011 - that the trap works
        image.load()
    assert (tmp_path / "started").exists()


@pytest.mark.parametrize("name", READERS)
def test_a_named_pipe_among_photos_is_one_sentence(name: str, photo: Path) -> None:
    os.mkfifo(photo)
    with pytest.raises(
        InvalidInput, match=r"cannot read '.*a\.png': it is a named pipe, and a regular file is expected$"
    ):
        READERS[name](photo)


@pytest.mark.parametrize("name", READERS)
def test_a_decompression_bomb_is_one_sentence(name: str, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(photo)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(
        InvalidInput, match=r"a\.png': it may be .* bomb \(.*10000.*\); set PIL.Image.MAX_IMAGE_PIXELS hig"
    ):
        READERS[name](photo)


def test_a_pipe_is_skipped_as_other_bad_files_are(photo: Path) -> None:
    os.mkfifo(photo)
    Image.new("RGB", (8, 8)).save(photo.with_name("b.png"))
    with pytest.warns(SkippedFiles, match=r"skipped 1 of 2 files: .*named pipe"):
        ((images, _),) = list(ImageFolder(photo.parents[1], (8, 8), on_error="skip").batches())
    assert len(images) == 1


def test_content_decides_what_a_file_is(photo: Path) -> None:
    Image.fromarray(np.full((4, 4, 3), 7, np.uint8)).save(photo, "WEBP", lossless=True)
    assert (read_image(photo) == 7).all()
    assert (ImageFolder(photo.parents[1], None, dtype="uint8")[0] == 7).all()


def test_pixels_without_a_conversion_are_named(photo: Path) -> None:
    Image.new("LAB", (4, 4)).save(photo, "TIFF")
    with pytest.raises(UnreadableFile, match="it has pixels of Pillow's mode 'LAB', which has no conversion to L"):
        ImageFolder(photo.parents[1], color="grayscale")[0]


@pytest.mark.parametrize(
    "use",
    [
        lambda root: ImageFolder(root),
        lambda root: ImageFolder(root, class_mode=None),
        lambda root: ImageDataGenerator().flow_from_directory(root),
        lambda root: photos(root),
        lambda root: by_command(augment)(root / "cats"),
    ],
    ids=["ImageFolder", "without classes", "flow_from_directory", "compare --images", "augment"],
)
def test_a_folder_that_cannot_be_read_is_not_called_empty(
    use: Reader, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8)).save(photo)
    scandir = os.scandir

    def refuse(path: str) -> object:  # permission bits do not stop root
        if Path(path).name == "cats":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InvalidInput, match=r"^the folder '.*cats' cannot be read: permission denied$"):
        use(photo.parents[1])
