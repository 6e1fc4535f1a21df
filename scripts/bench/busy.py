"""The part of the time in which a GPU computes, as its driver counts it, whatever the framework."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import threading
from types import TracebackType

COMMAND = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=50")


class Busy:
    """Inside, the fraction is sampled: of the last moment before each sample, in which the GPU ran anything.

    Args:
        number: of the GPU.

    Attributes:
        samples: fractions in [0, 1], those of the driver's moments that lie inside; none without a GPU.
    """

    def __init__(self, number: int = 0) -> None:
        self.samples: list[float] = []
        self._command = [*COMMAND, f"--id={number}"]
        self._running: subprocess.Popen[str] | None = None

    @property
    def fraction(self) -> float | None:
        """The mean; None where nothing was sampled."""
        return statistics.fmean(self.samples) if self.samples else None

    def __enter__(self) -> Busy:
        if shutil.which(COMMAND[0]):
            self._running = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
            )
            self._reading = threading.Thread(target=self._read, args=(self._running,), daemon=True)
            self._reading.start()
        return self

    def _read(self, running: subprocess.Popen[str]) -> None:
        assert running.stdout is not None
        for line in running.stdout:
            if line.strip().isdecimal():
                self.samples.append(int(line) / 100)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running.terminate()
            self._running.wait()
            self._reading.join()
            # The first tells of the time before.
            del self.samples[:1]
