"""Encoders for tests on Ray, in a package that the cluster's processes find as if it were installed there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.ray_cluster import RayNodes
from tests.servers import wait_for

_MODULE = '''
import os
import signal
import time
from pathlib import Path
import numpy as np
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import EncoderOptions

class Gated:
    """Counts letters. What a text says happens first; every text that was read is a line in the folder `gate`."""
    class Options(EncoderOptions):
        name: str = "gated"
        gate: str
        width: int = 8
    def __init__(self, options):
        self.gate, self.width = Path(options.gate), options.width
    def encode(self, texts):
        for text in texts:
            if "wait" in text:
                (self.gate / f"{os.getpid()}.waits").touch()
                while not (self.gate / "open").exists():
                    time.sleep(0.05)
            if "deadly" in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if "mend" in text:
                raise ErasmoError("Got a text to mend", expected="none", fix="mend it")
            if "bug" in text:
                raise ValueError("a fault of ours")
        with (self.gate / f"{os.getpid()}.read").open("a") as read:
            read.writelines(f"{text}\\n" for text in texts)
        rng = [[text.count(letter) for letter in "abcdefgh"] for text in texts]
        return np.tile(np.array(rng, dtype=np.float32), (1, self.width // 8))
'''


def install_encoders(nodes: RayNodes) -> None:
    """Make the encoder `gated` known to the workers and to this process."""
    site = nodes.folder / "site"
    if not site.is_dir():
        info = site / "gated_encoders-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "gated_encoders.py").write_text(_MODULE)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gated-encoders\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[erasmo_dagster.encoders]\ngated = gated_encoders:Gated\n")
    if str(site) not in sys.path:
        sys.path.insert(0, str(site))


class Gate:
    """The folder of a `gated` encoder: who waits in it, and what was read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def waiting(self) -> int:
        """The process id of a worker that waits; it comes to that."""
        found = wait_for("a worker at the gate", lambda: next(self.folder.glob("*.waits"), None), seconds=900)
        return int(found.stem)

    def open(self) -> None:
        (self.folder / "open").touch()

    def read(self) -> list[str]:
        """The texts that were read, as often as they were."""
        return [line for file in self.folder.glob("*.read") for line in file.read_text().splitlines()]

    def counts(self) -> dict[int, int]:
        """How many texts each process has read, by its id."""
        return {int(file.stem): len(file.read_text().splitlines()) for file in self.folder.glob("*.read")}


def is_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
