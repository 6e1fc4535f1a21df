"""``agnostic augment`` through the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("agnostic.files", reason="needs the rest of the house")
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


def test_wrong_folders_and_ranges_are_refused(run, folder, tmp_path):
    from agnostic.errors import InvalidInput

    for arguments in ([tmp_path / "none"], [tmp_path], [folder, "--zoom", 0, 1], [folder, "--fill-mode", "edge"]):
        result = run(*arguments)
        assert isinstance(result.exception, InvalidInput)
