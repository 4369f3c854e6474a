"""What an interrupted training goes on from: weights and optimizer as safetensors, the rest as JSON."""

from __future__ import annotations

import json
import logging
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import checksums, damaged, whole_file, whole_folder
from erasmo_dagster.method.parallel import Alone, Workers

if TYPE_CHECKING:
    import torch

_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training, a folder a step; each appears whole.

    ``key`` says what is trained on what: checkpoints of another key, and damaged ones, are dropped on opening. Only
    the latest and the best are kept. Of several workers all read them and the first alone writes and removes.

    The folder belongs to the run that asked for its latest last, as a file beside it says: the process of a run that
    was killed may go on for a moment, and must not change what the next one reads.
    """

    def __init__(self, folder: Path, key: str, workers: Workers | None = None) -> None:
        self.folder, self.key = folder, key
        self._workers = workers or Alone()
        self._run = uuid.uuid4().hex
        self._owner = folder.with_name(f"{folder.name}.run")

    def latest(self) -> dict[str, Any] | None:
        """State of the last whole checkpoint of this training; every other one but its best is removed.

        The first worker says which it is. Raises ErasmoError for another one that does not see it.
        """
        found = self._latest() if self._workers.rank == 0 else None
        step = self._workers.agreed(-1 if found is None else int(found["step"]))
        if step < 0 or found is not None:
            return found
        if (state := self._state(step)) is None:
            raise ErasmoError(
                f"Got no checkpoint in {self._path(step)} on one of the workers",
                expected="the folder that the first worker writes",
                fix="set ERASMO_HOME to a folder that every machine of the cluster shares",
            )
        return state

    def _latest(self) -> dict[str, Any] | None:
        with whole_file(self._owner) as file:
            file.write_text(self._run, encoding="ascii")
        states = {step: self._state(step) for step in self._steps()}
        for step in sorted(states, reverse=True):
            state = states[step]
            if state is not None and (state["best_step"] is None or states.get(state["best_step"])):
                self._keep({step, state["best_step"]})
                return state
        self._keep(set())
        return None

    def save(
        self, state: Mapping[str, Any], weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        """Write a checkpoint of ``state["step"]``; those before it go, but for ``state["best_step"]``.

        Raises ErasmoError where another run has begun to train here.
        """
        if self._workers.rank > 0:
            return
        from safetensors.torch import save_file

        step = int(state["step"])
        self._check_own()
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_folder(self._path(step)) as folder:
            save_file(dict(weights), folder / _WEIGHTS)
            save_file(_optimizer_tensors(optimizer), folder / _OPTIMIZER)
            whole = {"key": self.key, "files": checksums(folder), **state}
            (folder / _STATE).write_text(json.dumps(whole), encoding="utf-8")
        self._check_own()
        self._keep({step, state["best_step"]})

    def weights(self, step: int) -> dict[str, torch.Tensor]:
        """Trained weights as they were at ``step``, by parameter name."""
        from safetensors.torch import load_file

        return load_file(self._path(step) / _WEIGHTS)

    def restore_optimizer(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Put the optimizer back to where it was at ``step``."""
        from safetensors.torch import load_file

        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in load_file(self._path(step) / _OPTIMIZER).items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def remove(self) -> None:
        """Delete all of them, when every worker has called it: the training is done."""
        self._workers.agreed(0)
        if self._workers.rank == 0 and self._is_own():
            shutil.rmtree(self.folder, ignore_errors=True)
            self._owner.unlink(missing_ok=True)

    def _is_own(self) -> bool:
        try:
            return self._owner.read_text(encoding="ascii") == self._run
        except FileNotFoundError:  # somebody has cleared it all: nobody reads there
            return True

    def _check_own(self) -> None:
        if not self._is_own():
            raise ErasmoError(
                f"Got another run that trains with the checkpoints in {self.folder}",
                expected="one run at a time",
                fix="let that one end",
            )

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step}"

    def _steps(self) -> list[int]:
        found = self.folder.glob("step-*") if self.folder.is_dir() else []
        return [int(match[1]) for path in found if (match := re.fullmatch(r"step-(\d+)", path.name))]

    def _state(self, step: int) -> dict[str, Any] | None:
        """The step's state where it is whole and belongs to this training."""
        folder = self._path(step)
        try:
            state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            if state["key"] != self.key:
                return None
            fault = damaged(folder, state["files"])
        except (OSError, ValueError, KeyError, TypeError):
            fault = _STATE
        if fault is None:
            return dict(state)
        _log.warning("the checkpoint %s is damaged (%s) and was dropped", folder, fault)
        return None

    def _keep(self, steps: set[int | None]) -> None:
        for step in self._steps():
            if step not in steps:
                shutil.rmtree(self._path(step), ignore_errors=True)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{key}": tensor.detach().cpu().contiguous()
        for index, values in optimizer.state_dict()["state"].items()
        for key, tensor in values.items()
    }
