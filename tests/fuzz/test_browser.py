"""Pages in a real browser: no script in a name runs, and none would if it had become markup."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.fuzz import hostile
from tests.test_pages import comparison, page_of
from tests.waiting import HANG

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
SCRIPT = (
    "<script>document.documentElement.id = 'run'</script><img src=x onerror=\"document.documentElement.id = 'run'\">"
)


def _opened(page: Path) -> str:
    """What the browser made of a page, its scripts run."""
    assert BROWSER is not None
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=HANG, env={**os.environ, "HOME": profile},
        )  # fmt: skip
    assert "<html" in done.stdout, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed: apt-get install chromium")
def test_a_browser_runs_nothing_of_a_page(tmp_path: Path) -> None:
    rng = random.Random(0)
    page = page_of(comparison(lambda: hostile.text(rng) + SCRIPT.replace("'run'", '"run"')), tmp_path)
    shown = _opened(tmp_path / "page.html")
    assert "<h2>All layers</h2>" in shown
    assert 'id="run"' not in shown.partition("<head")[0]
    # The same page with the script as markup: the policy stops it. Without the policy it runs, so this test can fail.
    (tmp_path / "in.html").write_text(page.replace("<h2>", SCRIPT + "<h2>"), "utf-8")
    assert 'id="run"' not in _opened(tmp_path / "in.html").partition("<head")[0]
    policy = page[page.index("<meta http-equiv") : page.index("<meta name")]
    (tmp_path / "out.html").write_text(page.replace(policy, "").replace("<h2>", SCRIPT + "<h2>"), "utf-8")
    assert 'id="run"' in _opened(tmp_path / "out.html").partition("<head")[0]
