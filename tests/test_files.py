"""agnostic.files: written whole or not at all; images come back as they went."""

from __future__ import annotations

import io
import os
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from agnostic.errors import AgnosticError, InvalidInput, InvalidWeights
from agnostic.files import atomic_path, open_regular, read_image, write_png


def _gradient(height: int = 4, width: int = 6) -> np.ndarray:
    return (np.arange(height * width * 3, dtype=np.uint8) * 3).reshape(height, width, 3)


# open_regular ---------------------------------------------------------------------------------------------------------


def test_open_regular_opens_files_and_links_to_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        with open_regular(tmp_path / name) as file:
            assert (file.read(3), file.seek(0), file.read()) == (b"con", 0, b"content")


def test_what_is_no_regular_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.mkdir("folder")
    Path("link").symlink_to("pipe")
    Path("broken").symlink_to("gone")
    Path("photo.jpg").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name, said in {
            "pipe": "it is a named pipe, and a regular file is expected",
            "link": "it is a named pipe, and a regular file is expected",
            "folder": "it is a folder, and a regular file is expected",
            "socket": "it is a socket, and a regular file is expected",
            "/dev/zero": "it is a device, and a regular file is expected",
            "broken": "it is a broken symbolic link to 'gone'",
            "foto.jpg": "there is no such file; did you mean 'photo.jpg'?",
            "none/a.jpg": "there is no folder 'none'",
            "photo.jpg/a": "not a directory",
            "a\0b": "its name has a null character",
            "n" * 300: "file name too long",
        }.items():
            with pytest.raises(InvalidWeights) as error:
                open_regular(name, error=InvalidWeights)
            assert str(error.value) == f"cannot read {name!r}: {said}"


@pytest.mark.parametrize("kind", ["a named pipe", "a folder"])
@pytest.mark.parametrize("use", ["trace", "inputs", "checkpoint", "imdb", "image", "picture"])
def test_every_reader_opens_regular_files_only(use: str, kind: str, tmp_path: Path) -> None:
    from agnostic.augmentation import pictures
    from agnostic.compare.processes import read_inputs
    from agnostic.compare.traces import Trace
    from agnostic.data import load_imdb
    from agnostic_torch.pth import read_checkpoint

    readers = {
        "trace": Trace,
        "inputs": read_inputs,
        "checkpoint": read_checkpoint,
        "imdb": load_imdb,
        "image": read_image,
        "picture": pictures.load,
    }
    path = tmp_path / "x"
    os.mkfifo(path) if kind == "a named pipe" else path.mkdir()
    with pytest.raises(AgnosticError, match=f"it is {kind}, and a regular file is expected"):
        readers[use](path)


def test_a_file_without_permission_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:  # permission bits do not stop root
        raise PermissionError(13, "Permission denied", "a")

    (tmp_path / "a").touch()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InvalidInput, match=r"^cannot read '.*a': permission denied$"):
        open_regular(tmp_path / "a")


# atomic_path ----------------------------------------------------------------------------------------------------------


def test_atomic_path_shows_the_file_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        # On the same file system, and with all suffixes: ".weights.h5" is one of two.
        assert (temporary.parent.parent, temporary.name) == (target.parent, "a.txt")
    assert target.read_text() == "half"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_path_leaves_the_old_file_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half of the new")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_path_makes_folders_and_obeys_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("x")
    plain = tmp_path / "plain.txt"
    plain.write_text("x")
    assert target.stat().st_mode == plain.stat().st_mode


def test_atomic_path_takes_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".png")
    with atomic_path(target) as temporary:
        temporary.write_text("x")
    assert target.exists()


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    # A file in the place of a folder stops root as well, whom permission bits do not stop.
    (tmp_path / "file").write_text("")
    message = r"cannot write '.*a\.png': a file stands where its folder should be; [^\n]*$"
    with pytest.raises(InvalidInput, match=message), atomic_path(tmp_path / "file" / "a.png"):
        pytest.fail("the block must not run")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that nobody can write to")
def test_a_read_only_file_system_is_one_sentence() -> None:
    with pytest.raises(InvalidInput, match=r"cannot write '/proc/a\.png'"), atomic_path("/proc/a.png"):
        pytest.fail("the block must not run")


def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="it is a folder"), atomic_path(tmp_path):
        pytest.fail("the block must not run")


# write_png, read_image ------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_uint8_comes_back_as_it_went(image: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_png(Path(folder) / "a.png", image)
        np.testing.assert_array_equal(read_image(Path(folder) / "a.png"), image)


@given(hnp.arrays(np.float32, (3, 4, 3), elements=st.floats(0, 1, width=32)))
def test_floats_come_back_to_half_a_step(image: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_png(Path(folder) / "a.png", image)
        back = read_image(Path(folder) / "a.png")
    # Rounding to the nearest of 256 levels errs by at most 0.5; float32 of image * 255 adds at most 255 * 2^-24 < 2e-5.
    assert np.abs(back - image.astype(np.float64) * 255).max() <= 0.5 + 2e-5


@pytest.mark.parametrize(("shape", "mode"), [((2, 3), "L"), ((2, 3, 1), "L"), ((2, 3, 3), "RGB"), ((2, 3, 4), "RGBA")])
def test_channels_choose_the_mode(tmp_path: Path, shape: tuple[int, ...], mode: str) -> None:
    write_png(tmp_path / "a.png", np.zeros(shape))
    with Image.open(tmp_path / "a.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", mode, (3, 2))


def test_metadata_is_text_in_the_file(tmp_path: Path) -> None:
    metadata = {"model": "efficientnet_lite0", "note": "40 steps of 1 \N{GREEK SMALL LETTER MU}m"}
    write_png(tmp_path / "a.png", _gradient(), metadata)
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == metadata  # type: ignore[attr-defined]
    assert b"tEXtmodel\0efficientnet_lite0" in (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((2, 2, 3), 1.5), r"in \[0, 1\]"),
        (np.full((2, 2, 3), -0.1), r"in \[0, 1\]"),
        (np.full((2, 2, 3), np.nan), "finite"),
        (np.zeros((2, 2, 3), np.int64), "int64"),
        (np.zeros((2, 2, 5)), r"\(2, 2, 5\)"),
        (np.zeros((1, 2, 2, 3)), r"\(1, 2, 2, 3\)"),
        (np.zeros((0, 2, 3)), r"\(0, 2, 3\)"),
    ],
)
def test_what_is_no_image_is_refused_and_nothing_is_written(tmp_path: Path, image: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        write_png(tmp_path / "a.png", image)
    assert os.listdir(tmp_path) == []


def test_png_is_not_written_under_another_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"must end in '\.png'"):
        write_png(tmp_path / "a.jpg", _gradient())


def test_orientation_is_applied(tmp_path: Path) -> None:
    image = _gradient(4, 6)
    exif = Image.Exif()
    exif[0x0112] = (
        6  # EXIF 2.32, 4.6.4: row 0 of the file is the right side of the scene: turn it by 90 degrees clockwise
    )
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(image, -1))


def test_grey_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 0x8080, 65535]], np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 0], [0, 1, 128, 255])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(np.full((2, 3, 3), 255, np.uint8)).convert(mode).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.full((2, 3, 3), 255))


def test_a_missing_file_and_a_file_of_no_known_format_are_named(tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("no image")
    with pytest.raises(InvalidInput, match=r"cannot read '.*none\.jpg': there is no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(InvalidInput, match=r"cannot read '.*note\.jpg': it is no image of a format that is read here"):
        read_image(tmp_path / "note.jpg")
    with pytest.raises(InvalidInput, match="it is a folder"):
        read_image(tmp_path)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(InvalidInput, match="range is not known"):
        read_image(tmp_path / "f.tif")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "a.png", np.zeros((100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InvalidInput, match="decompression bomb"):
        read_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), st.data())
def test_a_damaged_file_is_an_image_or_one_error(kind: str, data: st.DataObject) -> None:
    stream = io.BytesIO()
    Image.fromarray(_gradient(16, 16)).save(stream, kind)
    damaged = bytearray(stream.getvalue())
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4), label="positions"):
        damaged[position] = data.draw(st.integers(0, 255), label="value")
    del damaged[data.draw(st.integers(0, len(damaged)), label="length") :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.bin"
        path.write_bytes(damaged)
        read = _read_or_refuse(path)
    assert read.ndim == 3
    assert read.shape[2] == 3


def _read_or_refuse(path: Path) -> np.ndarray:
    """The image, or an empty one where the file was refused, by its name."""
    try:
        return read_image(path)
    except InvalidInput as error:
        if str(path) not in str(error):
            raise
        return np.empty((0, 0, 3), np.uint8)


def test_a_truncated_photo_is_refused(tmp_path: Path) -> None:
    Image.fromarray(_gradient(64, 64)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match=r"a\.jpg"):
        read_image(tmp_path / "a.jpg")
