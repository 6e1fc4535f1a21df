"""``agnostic augment`` through the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("agnostic.files", reason="needs the rest of the package")
image = pytest.importorskip("PIL.Image")


@pytest.fixture
def run():
    from agnostic.cli import augment

    app = typer.Typer()
    augment.register(app)
    app.callback()(lambda: None)
    return lambda *arguments: CliRunner().invoke(app, ["augment", *map(str, arguments)])


def test_a_row_a_photo_and_a_column_a_draw(run, folder, tmp_path):
    def sheet(out, *more):
        result = run(folder, "--photos", 3, "--draws", 4, "--size", 20, "--out", out, "--json", *more)
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        assert len(answer["photos"]) == 3
        return np.asarray(image.open(answer["path"]))

    pixels = sheet(tmp_path / "a")
    gap = (pixels.shape[1] - 5 * 20) // 4 if pixels.shape[1] % 25 else 5
    assert pixels.shape[0] >= 3 * 20
    assert pixels.shape[1] >= 5 * 20
    assert gap > 0
    np.testing.assert_array_equal(pixels, sheet(tmp_path / "b"))
    assert not np.array_equal(pixels, sheet(tmp_path / "c", "--seed", 1))
    assert not np.array_equal(pixels, sheet(tmp_path / "d", "--rotation", 0, 0))


def test_a_sheet_made_otherwise_is_written_over_by_force_only(run, folder, tmp_path):
    from agnostic.errors import InvalidInput

    sheet = [folder, "--photos", 1, "--draws", 1, "--size", 8, "--out", tmp_path]
    for _ in range(2):
        assert run(*sheet).exit_code == 0
    (path,) = tmp_path.glob("*.png")
    before = path.read_bytes()
    assert isinstance(run(*sheet, "--seed", 1).exception, InvalidInput)
    assert path.read_bytes() == before
    assert run(*sheet, "--seed", 1, "--force").exit_code == 0
    assert path.read_bytes() != before


def test_wrong_folders_and_ranges_are_refused(run, folder, tmp_path):
    from agnostic.errors import InvalidInput

    for arguments in ([tmp_path / "none"], [tmp_path], [folder, "--zoom", 0, 1], [folder, "--fill-mode", "edge"]):
        result = run(*arguments)
        assert isinstance(result.exception, InvalidInput)


def test_photos_are_read_as_image_folders_read_them(run, tmp_path):
    """Upright, 16 bits scaled to 8, and a bad file costs its own row alone."""
    photos = tmp_path / "photos"
    (photos / "deep" / ".ipynb_checkpoints").mkdir(parents=True)
    (photos / "deep" / ".ipynb_checkpoints" / "z.png").write_bytes(b"a copy")
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 255
    exif = image.Exif()
    exif[0x0112] = 3  # upside down
    image.fromarray(pixels).save(photos / "a.png", exif=exif)
    (photos / "b.jpg").write_bytes(b"no image")
    image.fromarray(np.full((30, 20), 0x8080, np.uint16)).save(photos / "deep" / "c.png")

    still = [f"--{name.replace('_', '-')}" for name in ("rotation", "height_shift", "width_shift", "shear")]
    flat = [word for name in still for word in (name, 0, 0)]
    options = [*flat, "--zoom", 1, 1, "--horizontal-flip", 0, "--draws", 1, "--size", 20, "--out", tmp_path]
    result = run(photos, *options, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert [name.rpartition("/")[2] for name in answer["photos"]] == ["a.png", "c.png"]
    assert len(answer["left_out"]) == 1
    assert "b.jpg': it is no image" in answer["left_out"][0]
    sheet = np.asarray(image.open(answer["path"]))
    assert sheet.shape == (55, 55, 3)  # two rows of two pictures of 20 pixels, 5 between and around them
    for left in (5, 30):
        assert (sheet[5:15, left : left + 20] == 0).all()
        assert (sheet[15:25, left : left + 20] == 255).all()
        assert (sheet[30:50, left : left + 20] == 128).all()
    assert "skipped: cannot read" in run(photos, *options).stdout
