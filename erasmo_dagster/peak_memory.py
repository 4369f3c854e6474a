"""Peak resident memory of this process and everything it starts."""

from __future__ import annotations

import threading

import psutil


class PeakMemory:
    """Samples the resident memory of the process tree while the context is open.

    ``bytes`` is the highest sum seen; pages that two processes share count twice, so it errs upwards.
    """

    def __init__(self, interval: float = 0.25) -> None:
        self.bytes = 0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        me = psutil.Process()
        while True:
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.bytes = max(self.bytes, total)
            if self._stop.wait(self._interval):
                return
