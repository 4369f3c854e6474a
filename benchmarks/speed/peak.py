"""What matrix products reach on this machine: the physical limit of a language model's speed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SQUARE = 2_048  # rows and columns; also the tokens that the model's own layers are tried with
_TRIES, _SECONDS = 3, 0.02


class MatrixPeak:
    """Measures products of matrices: square ones, and those of a model's linear layers, on the engines' own device.

    ``shapes`` are (inputs, outputs) of the layers. The threads are torch's own.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], device: torch.device, dtype: torch.dtype) -> None:
        import torch

        self._layers = Counter(shapes)
        self._device = device
        generator = torch.Generator().manual_seed(0)

        def matrix(rows: int, columns: int) -> torch.Tensor:
            return torch.randn(rows, columns, generator=generator).to(device=device, dtype=dtype)

        self._square = (matrix(SQUARE, SQUARE), matrix(SQUARE, SQUARE))
        self._products: dict[torch.Size, int] = {}
        self._own = {(i, o): (matrix(SQUARE, i), matrix(i, o)) for i, o in self._layers}

    def gflops(self) -> tuple[float, float]:
        """Billions of operations a second: the most that any product reaches, and what the layers' reach together."""
        square = self._seconds(*self._square)
        best = 2 * SQUARE**3 / square
        operations = seconds = 0.0
        for (into, out), count in self._layers.items():
            took = self._seconds(*self._own[into, out])
            best = max(best, 2 * SQUARE * into * out / took)
            operations, seconds = operations + count * 2 * SQUARE * into * out, seconds + count * took
        return best / 1e9, operations / seconds / 1e9 if seconds else 0.0

    def _seconds(self, one: torch.Tensor, other: torch.Tensor) -> float:
        """The least of several tries, each of enough products to take some hundredths of a second."""
        import torch

        if other.shape not in self._products:
            with torch.inference_mode():
                self._timed(one, other, 1)  # the first product of a shape sets libraries up
                took = self._timed(one, other, 1)
            self._products[other.shape] = max(1, min(100, round(_SECONDS / max(took, 1e-6))))
        products = self._products[other.shape]
        with torch.inference_mode():
            return min(self._timed(one, other, products) for _ in range(_TRIES)) / products

    def _timed(self, one: torch.Tensor, other: torch.Tensor, products: int) -> float:
        import torch

        self._wait()
        started = time.perf_counter()
        for _ in range(products):
            torch.mm(one, other)
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
