"""Embedding: this project, the first paper's procedure and sentence-transformers, woven into each other's time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.quality.reading import texts_of
from benchmarks.quality.suite import Sample
from benchmarks.speed.data import ENTRIES
from benchmarks.speed.engines import BATCH, Clock, Floats, blocks_of, in_length_order, sentence_transformer, woven
from benchmarks.speed.peak import MatrixPeak
from benchmarks.speed.prefixes import Prefixes, linear_shapes, operations, prefixes_of
from benchmarks.speed.results import middle
from benchmarks.speed.setting import Bench
from erasmo_dagster import progress
from erasmo_dagster.method.batches import tokenize
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.paper import PADDED_TO
from erasmo_dagster.settings import EmbeddingSettings

_PAPER_ROWS, _SENTENCE_ROWS = 16, 512
_PEAKS = 4  # looks at the matrix peak in a round
_TRIED, _FEWEST = 8, 48  # rows that tell how fast a machine is, and rows of a table at the least


@dataclass(frozen=True)
class _Plan:
    """Rounds of each table; ``rows`` of it at most, and rows that the others read in a round."""

    rounds: int
    rows: int | None
    paper_rows: int
    sentence_rows: int
    whole: bool = False  # sentence-transformers reads the whole table in the last round


_PLANS = {
    "quick": _Plan(rounds=2, rows=128, paper_rows=2, sentence_rows=32),
    "default": _Plan(rounds=3, rows=None, paper_rows=_PAPER_ROWS, sentence_rows=_SENTENCE_ROWS),
    "full": _Plan(rounds=4, rows=None, paper_rows=_PAPER_ROWS, sentence_rows=_SENTENCE_ROWS, whole=True),
}


def measure(bench: Bench, names: Sequence[str] = tuple(ENTRIES)) -> Iterator[dict[str, Any]]:
    """Table -> its figures, after every round with what is known by then.

    ``vs_paper`` and ``vs_sentence_transformers`` are ratios of rows a second, medians over the rounds; ``ceiling`` is
    the number of all tokens over that of distinct prefixes, ``share_of_ceiling`` what of it the ratio to
    sentence-transformers reaches. ``max_abs_diff`` is the largest difference between the vectors of both.
    ``share_of_peak`` is the rate of the operations that had to be computed over that of a matrix product.
    Where ``bench`` has seconds, no round begins that would go beyond them, but the first of each table.
    """
    plan = _PLANS[bench.effort]
    engines: _Engines | None = None
    tables = {name: bench.tables.sample(name, bench.seed, plan.rows) for name in names}
    if bench.seconds:
        engines = _Engines(bench)
        share = bench.seconds / plan.rounds / len(tables)
        tables = {name: engines.fitting(sample, plan, share) for name, sample in tables.items()}
    found: dict[str, dict[str, Any]] = {}
    pieces: dict[str, list[dict[str, Any]]] = {name: [] for name in tables}
    deadline = time.monotonic() + bench.seconds if bench.seconds else None
    slowest = dict.fromkeys(tables, 0.0)
    with progress.bar("embedding", plan.rounds * len(tables), "rounds") as shown:
        for number in range(plan.rounds):
            for name, sample in tables.items():
                if deadline and number and time.monotonic() + slowest[name] > deadline:
                    continue
                key = {"part": "embedding", "table": name, "rows": sample.id, "round": number}
                if (piece := bench.pieces.get(**key)) is None:
                    engines = engines or _Engines(bench)
                    ready, started = engines, time.monotonic()
                    work = _round(ready, sample, plan, bench.seed + number, number + 1 == plan.rounds)
                    piece = bench.pieces.measured(work, **key)
                    slowest[name] = max(slowest[name], time.monotonic() - started)
                pieces[name].append(piece)
                found[bench.tables.called(name)] = _figures(pieces[name])
                shown.update(1)
                yield found
    engines = None
    release_memory()


class _Engines:
    """The three in memory at once, on the same device with the same threads."""

    def __init__(self, bench: Bench) -> None:
        from erasmo_dagster.method.encoders.causal_lm import CausalLMEncoder
        from erasmo_dagster.method.paper import PaperModel

        base, device = bench.base(), bench.device
        self.ours = CausalLMEncoder(base, None, EmbeddingSettings(), device)
        self.sentence = sentence_transformer(base, self.ours.max_length, device)
        self.paper = PaperModel(base, verbalize=False, seed=bench.seed, device=device)
        self.blocks = blocks_of(self.sentence)
        self.peak = MatrixPeak(linear_shapes(self.blocks), self.blocks.device, self.blocks.dtype)
        self._threads = bench.threads

    def use_all_threads(self) -> None:
        """The same number for whoever comes next."""
        import torch

        torch.set_num_threads(self._threads)

    def fitting(self, sample: Sample, plan: _Plan, seconds: float) -> Sample:
        """As many rows of the sample, from the first, as a round of so many seconds has time for."""
        texts = texts_of(sample)
        self.use_all_threads()
        self.sentence.encode(texts[:2], show_progress_bar=False)  # what is set up at the first call
        clock = Clock()
        clock.time(_TRIED, lambda: self.sentence.encode(texts[-_TRIED:], show_progress_bar=False))
        tokens = sum(map(len, tokenize(self.sentence.tokenizer, texts))) / len(texts)
        rate = clock.rows * tokens / clock.seconds
        # What the others read costs its tokens, a row of the paper's 1,024; ours costs no more than all of its own.
        room = seconds * rate - plan.paper_rows * PADDED_TO - min(plan.sentence_rows, len(texts)) * tokens
        rows = int(min(len(texts), max(_FEWEST, room / tokens)))
        return sample.part(np.arange(rows))

    def prefixes(self, texts: Sequence[str]) -> Prefixes:
        """Tokens of the texts, as all engines read them."""
        whole = tokenize(self.sentence.tokenizer, texts)
        return prefixes_of([ids[: self.ours.max_length] for ids in whole])


def _round(engines: _Engines, sample: Sample, plan: _Plan, seed: int, last: bool) -> Callable[[], dict[str, Any]]:
    def measured() -> dict[str, Any]:
        texts = texts_of(sample)
        rng = np.random.default_rng([seed, len(texts)])
        chosen = np.arange(len(texts))
        if not (plan.whole and last):
            chosen = np.sort(rng.permutation(len(texts))[: plan.sentence_rows])
        paper_rows = rng.permutation(len(texts))[: plan.paper_rows]
        sentence, paper = Clock(), Clock()
        peaks: list[tuple[float, float]] = []
        vectors: Floats = np.zeros((len(texts), engines.blocks.config.get_text_config().hidden_size), np.float32)

        def read(positions: Sequence[int]) -> None:
            engines.use_all_threads()
            some = [texts[at] for at in positions]
            vectors[positions] = sentence.time(
                len(some), lambda: engines.sentence.encode(some, batch_size=BATCH, show_progress_bar=False)
            )

        def read_as_published(row: int) -> None:
            engines.use_all_threads()
            paper.time(1, lambda: engines.paper.embed(sample.frame[[row]]))

        order = chosen[in_length_order([texts[at] for at in chosen.tolist()])].tolist()
        parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        work = [
            *_spread([partial(read, part) for part in parts]),
            *_spread([partial(read_as_published, row) for row in paper_rows.tolist()]),
            *_spread([lambda: peaks.append(engines.peak.gflops())] * _PEAKS),
        ]
        engines.use_all_threads()
        with progress.hidden():
            engines.ours.encode(texts[:2])  # what is set up at the first call
            engines.sentence.encode(texts[:2], show_progress_bar=False)
            own, ours = woven(engines.ours, texts, [do for _, do in sorted(work, key=lambda item: item[0])])
        found = engines.prefixes(texts)
        computed = int(getattr(engines.ours, "distinct_tokens", engines.ours.tokens))
        return {
            "ours": {**ours.told(), "tokens_computed": computed},
            "sentence_transformers": sentence.told(),
            "paper": paper.told(),
            "whole": plan.whole and last,
            "tokens": found.tokens,
            "distinct_tokens": found.distinct,
            "operations": operations(engines.blocks, found),
            "max_abs_diff": float(np.abs(own[chosen] - vectors[chosen]).max()),
            "gflops": [round(most, 1) for most, _ in peaks],
            "layers_gflops": [round(layers, 1) for _, layers in peaks],
        }

    return measured


def _spread(work: Sequence[Callable[[], None]]) -> list[tuple[float, Callable[[], None]]]:
    """Each piece of work with the share of a round at which it is due."""
    return [((at + 0.5) / len(work), do) for at, do in enumerate(work)]


def _figures(pieces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def speed(piece: dict[str, Any], engine: str) -> float:
        return float(piece[engine]["rows"] / piece[engine]["seconds"])

    def rates(engine: str) -> list[float]:
        return [speed(piece, engine) for piece in pieces]

    first = pieces[0]
    ceiling = first["tokens"] / first["distinct_tokens"]
    ratio = middle([a / b for a, b in zip(rates("ours"), rates("sentence_transformers"), strict=True)], 3)
    gflops = [float(np.median(piece["gflops"])) for piece in pieces]
    layers = [float(np.median(piece["layers_gflops"])) for piece in pieces]
    reached = [piece["operations"] / piece["ours"]["seconds"] / 1e9 for piece in pieces]
    figures = {
        "rows": first["ours"]["rows"],
        "tokens": first["tokens"],
        "distinct_tokens": first["distinct_tokens"],
        "vs_paper": middle([a / b for a, b in zip(rates("ours"), rates("paper"), strict=True)], 2),
        "vs_sentence_transformers": ratio,
        "ceiling": round(ceiling, 3),
        "share_of_ceiling": round(ratio / ceiling, 3),
        "max_abs_diff": max(piece["max_abs_diff"] for piece in pieces),
        "share_of_peak": middle([a / b for a, b in zip(reached, gflops, strict=True)], 3),
        "share_of_layers_peak": middle([a / b for a, b in zip(reached, layers, strict=True)], 3),
        "rows_per_s": middle(rates("ours"), 2),
        "tokens_per_s": middle([piece["tokens"] / piece["ours"]["seconds"] for piece in pieces], 1),
        "distinct_tokens_per_s": middle([piece["distinct_tokens"] / piece["ours"]["seconds"] for piece in pieces], 1),
        "sentence_transformers_rows_per_s": middle(rates("sentence_transformers"), 2),
        "paper_rows_per_s": middle(rates("paper"), 3),
        "peak_gflops": middle(gflops, 1),
        "pieces": list(pieces),
    }
    if whole := [piece for piece in pieces if piece["whole"]]:
        figures["vs_sentence_transformers_whole"] = middle(
            [speed(piece, "ours") / speed(piece, "sentence_transformers") for piece in whole], 3
        )
    return figures
