"""OpenCV, which need not be installed; the core imports it here alone."""

from __future__ import annotations

import functools
import importlib
import threading
from typing import Any

_importing = threading.Lock()


@functools.cache
def opencv() -> Any:
    """OpenCV if it is installed, else None."""
    # While cv2 is being imported it takes itself out of sys.modules for a moment: two threads at once would fail.
    with _importing:
        try:
            return importlib.import_module("cv2")
        except ModuleNotFoundError:
            return None
