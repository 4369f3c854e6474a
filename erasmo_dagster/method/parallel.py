"""One training by several workers: every step is divided among them, and what each found is added up.

Every worker has the same rows, seed, weights and optimizer. Gradients and losses are summed over the workers before
anything is decided by them, so that all workers take the same steps and stop at the same one. Only the first writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from erasmo_dagster import progress

if TYPE_CHECKING:
    import torch

_FLAT = 2**26  # numbers that are added up at once: 256 MiB of fp32


class Workers(Protocol):
    """The workers of a training as one of them sees them."""

    @property
    def rank(self) -> int:
        """Which of the workers this one is; 0 is the first, which writes and shows progress."""

    def share(self, sequences: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """The part of ``sequences`` that is this worker's; it may be empty."""

    def add_gradients(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Put the sum over all workers in the place of every weight's gradient."""

    def total(self, value: float) -> float:
        """The sum of ``value`` over all workers."""

    def agreed(self, number: int) -> int:
        """The first worker's ``number``; all workers have called it when one goes on."""

    def bar(self, description: str, total: int, unit: str, *, done: int) -> Any:
        """A progress bar, as of :func:`erasmo_dagster.progress.bar`."""

    def tell(self, figures: Mapping[str, float | None]) -> None:
        """Pass on where the training is; all workers call it at the same steps."""


class Alone:
    """A training in one process: there is nothing to divide and nothing to add."""

    rank = 0

    def share(self, sequences: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """All of them."""
        return sequences

    def add_gradients(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """They are the sum."""

    def total(self, value: float) -> float:
        """The value itself."""
        return value

    def agreed(self, number: int) -> int:
        """The number itself."""
        return number

    def bar(self, description: str, total: int, unit: str, *, done: int) -> Any:
        """The bar of this process."""
        return progress.bar(description, total, unit, done=done)

    def tell(self, figures: Mapping[str, float | None]) -> None:
        """Nobody asks."""


class LostWorkerError(RuntimeError):
    """Another worker did not join in: its process or its machine is gone, or the network between."""


class Together:
    """The processes of torch's default process group, which is set up before: one is worker ``rank`` of ``size``.

    ``device`` is where the group's backend adds: the CPU for gloo, this worker's GPU for nccl. No progress is shown. A
    call that a lost worker does not join raises LostWorkerError, or waits as long as the group was told to.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self._size, self._device = rank, size, device

    def share(self, sequences: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """This worker's part: of about as many tokens as every other's, in the order that they had."""
        mine = divided(list(map(len, sequences)), self._size)[self.rank]
        return [sequences[position] for position in mine]

    def add_gradients(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Sum the gradients; a weight that no worker has one of keeps none."""
        import torch

        for group in _groups(weights):
            grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in group]
            found = grads[0].new_tensor([w.grad is not None for w in group])
            flat = torch.cat([*(grad.reshape(-1) for grad in grads), found])
            _add_up(flat)
            *sums, counts = flat.split_with_sizes([*(w.numel() for w in group), len(group)])
            for weight, added, count in zip(group, sums, counts.tolist(), strict=True):
                weight.grad = added.view_as(weight) if count else None

    def total(self, value: float) -> float:
        """The sum over all workers, the same to the last bit on each."""
        import torch

        number = torch.tensor([value], dtype=torch.float64, device=self._device)
        _add_up(number)
        return float(number)

    def agreed(self, number: int) -> int:
        """The first worker's number."""
        import torch

        # A sum, which nobody has before all have joined; the sender of a broadcast would go on at once.
        told = torch.tensor([0 if self.rank else number], dtype=torch.int64, device=self._device)
        _add_up(told)
        return int(told)

    def bar(self, description: str, total: int, unit: str, *, done: int) -> Any:
        """A bar that is not shown."""
        with progress.hidden():
            return progress.bar(description, total, unit, done=done)

    def tell(self, figures: Mapping[str, float | None]) -> None:
        """Nobody asks."""


def _add_up(numbers: torch.Tensor) -> None:
    """Put the sum over all workers in the place of ``numbers``."""
    import torch

    try:
        torch.distributed.all_reduce(numbers)
    except RuntimeError as error:
        raise LostWorkerError(str(error)) from error


def divided(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Positions of ``lengths`` in ``parts`` lists of about equal sums; lists are empty where there are too few.

    The longest first, each to the part that has least, so that the same lengths are always divided in one way.

    >>> divided([3, 9, 4, 4], 2)
    [[1], [0, 2, 3]]
    """
    found: list[list[int]] = [[] for _ in range(parts)]
    sums = [0] * parts
    for position in sorted(range(len(lengths)), key=lambda p: -lengths[p]):
        least = sums.index(min(sums))
        found[least].append(position)
        sums[least] += lengths[position]
    return [sorted(part) for part in found]


def _groups(weights: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """The weights in their order, in groups of numbers of one type that are not too many to be copied beside them."""
    group: list[torch.nn.Parameter] = []
    size = 0
    for weight in weights:
        if group and (group[0].dtype != weight.dtype or size + weight.numel() > _FLAT):
            yield group
            group, size = [], 0
        group.append(weight)
        size += weight.numel()
    if group:
        yield group
