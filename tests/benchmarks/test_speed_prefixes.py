from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speed.prefixes import linear_shapes, operations, prefixes_of
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.loading import load_base

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12)


@given(SEQUENCES)
def test_distinct_prefixes_are_counted(sequences: list[list[int]]) -> None:
    found = prefixes_of(sequences)
    every = {tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))}
    assert found.tokens == sum(map(len, sequences))
    assert found.distinct == len(every)
    assert found.looked_at == sum(map(len, every))
    assert found.ceiling == found.tokens / len(every)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_operations_are_those_of_the_blocks_weights_and_of_attention(
    arch: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tiny_model
    if arch == "gpt2":
        from tests.tiny_models import tiny_causal_lm

        folder = tiny_causal_lm(tmp_path / "gpt2", arch="gpt2")
    model, _ = load_base(LocalModel("path:tiny", folder, "0"))
    blocks = model.base_model
    weights = sum(
        parameter.numel()
        for name, parameter in blocks.named_parameters()
        if parameter.dim() == 2 and not any(part in name for part in ("embed", "wte", "wpe"))
    )
    assert sum(into * out for into, out in linear_shapes(blocks)) == weights
    found = prefixes_of([[1, 2, 3], [1, 2, 4]])
    # Two layers of width 32: products of the query with 1, 2, 3 and 3 keys, and of the weights with as many values.
    assert operations(blocks, found) == 2 * weights * 4 + 4 * 2 * 32 * (1 + 2 + 3 + 3)
