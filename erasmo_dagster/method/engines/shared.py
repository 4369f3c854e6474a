"""Every shared prefix computed once: exact, since a token of a causal model depends on those before it alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from erasmo_dagster.method.batches import Sequences
from erasmo_dagster.method.engines.attention import Slot, attach, trial_sequences
from erasmo_dagster.method.engines.base import Engine, Pooled, as_vectors, reads_last, states_of
from erasmo_dagster.method.engines.passage import passage_of
from erasmo_dagster.method.engines.plain import PlainEngine
from erasmo_dagster.method.engines.prefixes import Chunk, Stream, as_stream, chunks
from erasmo_dagster.settings import EmbeddingSettings

if TYPE_CHECKING:
    import torch

    from erasmo_dagster.method.engines.passage import Carried

# Tokens that go through the model at once. On a CPU few, so that what a layer leaves stays in the processor's cache.
_TOKENS = {"cpu": 512}
_TOKENS_ELSEWHERE = 16_384
_BLOCK = 64
_LONG = 512  # tokens of a text from which on a block is larger: its path is gathered once for more tokens


class SharedPrefixEngine(Engine):
    """Reads sequences as one stream of their prefix tree, ``batch_tokens`` tokens at a time.

    The linear layers see a stream without padding. Attention is computed over blocks of neighbouring tokens, each
    beside the path from the root to it; keys and values of the path are carried from chunk to chunk, so that memory
    does not grow with the number of sequences. Positions are depths in the tree.

    Raises NotServedError for a model that gives other vectors this way than one sequence at a time, as a trial at the
    beginning shows; the model is then as it was.
    """

    def __init__(self, model: Any, device: torch.device, batch_tokens: int | None = None) -> None:
        super().__init__(batch_tokens or _TOKENS.get(device.type, _TOKENS_ELSEWHERE))
        self._model, self._device = model, device
        self._blocks: Any = model.base_model  # the output layer over the vocabulary is not needed
        trial = trial_sequences(int(model.config.get_text_config().vocab_size))
        self._slot = attach(model, lambda: self._alone(trial), lambda slot, given: self._apart(slot, trial, given))

    def release(self) -> None:
        """Give the model back as it was."""
        self._slot.release(self._model)

    def tokens(self, sequences: Sequences) -> int:
        """Those of all distinct prefixes."""
        return len(as_stream(sequences).tokens)

    def parts(self, sequences: Sequences, ways: Sequence[EmbeddingSettings]) -> Iterator[Pooled]:
        """Chunk by chunk."""
        return self._read(self._slot, as_stream(sequences), ways, self.size)

    def _read(
        self, slot: Slot, stream: Stream, ways: Sequence[EmbeddingSettings], size: int, block: int | None = None
    ) -> Iterator[Pooled]:
        import torch

        block = block or (_BLOCK if stream.longest < _LONG else 4 * _BLOCK)
        deep = not all(map(reads_last, ways))
        carried: Carried = {}
        sums: list[torch.Tensor | None] = [None] * len(ways)
        for chunk in chunks(stream, size, block):
            passage = passage_of(chunk, carried, stream.longest, self._device)
            ids, depths = (
                torch.from_numpy(values[chunk.start : chunk.stop]).to(self._device)[None]
                for values in (stream.tokens, stream.depths)
            )
            vectors = []
            with torch.inference_mode(), slot.holding(passage):
                out = self._blocks(input_ids=ids, position_ids=depths, use_cache=False, output_hidden_states=deep)
                for i, way in enumerate(ways):
                    pooled, sums[i] = _pool(states_of(out, way)[0], chunk, way, sums[i])
                    vectors.append(as_vectors(pooled, way))
            carried = passage.kept
            yield Pooled(stream.order[chunk.sequences].astype(np.intp), vectors, chunk.stop - chunk.start)

    def _alone(self, sequences: Sequences) -> list[np.ndarray]:
        """The vectors as the model gives them one sequence at a time."""
        plain = PlainEngine(self._model, self._device)
        return [part.vectors[0][0] for s in sequences for part in plain.read([s], [EmbeddingSettings()])]

    def _apart(self, slot: Slot, sequences: Sequences, expected: list[np.ndarray]) -> float:
        """The largest difference from the vectors expected, as a share of the largest value."""
        found = np.empty_like(np.array(expected))
        for part in self._read(slot, as_stream(sequences), [EmbeddingSettings()], size=10, block=4):
            found[part.positions] = part.vectors[0]
        return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


def _pool(
    states: torch.Tensor, chunk: Chunk, way: EmbeddingSettings, sums: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Vectors [m, d] of the sequences that end in the chunk, and the sums over the path that it ends with.

    ``states`` [tokens, d] are the chunk's. ``sums`` [carried + 1, d] are those over the first tokens of the path that
    it stands on: of none, of one and so on; None at the beginning.
    """
    import torch

    if way.pooling == "last":
        at = [int(path[-1]) - chunk.carried for path in chunk.paths]  # no sequence ends before what it adds
        return states[at], None
    if sums is None:
        sums = states.new_zeros(1, states.shape[1])
    held = [int(np.searchsorted(path, chunk.carried)) for path in chunk.paths]
    member = np.zeros((len(chunk.paths), len(states)), dtype=np.float32)
    for row, (path, n) in enumerate(zip(chunk.paths, held, strict=True)):
        member[row, path[n:] - chunk.carried] = 1.0
    lengths = torch.tensor([len(path) for path in chunk.paths], device=states.device, dtype=states.dtype)
    pooled = (sums[held] + torch.from_numpy(member).to(states.device) @ states) / lengths[:, None]
    kept = int(np.searchsorted(chunk.path, chunk.carried))
    added = torch.from_numpy(chunk.path[kept:] - chunk.carried).to(states.device)
    return pooled, torch.cat([sums[: kept + 1], sums[kept] + states[added].cumsum(0)])
