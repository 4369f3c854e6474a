"""Methods of one idea each, beside what each is compared with: what an idea adds or costs.

``python -m benchmarks.quality … --ideas`` runs them; `docs.make_quality` writes their table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality import ideas_columns as columns
from benchmarks.quality import ideas_rows as rows
from benchmarks.quality import ideas_views as views
from benchmarks.quality.ideas_columns import Draw, Readers, Rows
from benchmarks.quality.methods import DEFAULT, Fit, Fitted, Method, Place, Positions, about_ours, versions_of
from benchmarks.quality.reading import MIDDLE
from benchmarks.quality.suite import Sample
from erasmo_dagster.errors import ErasmoError

PREFIX = "idea:"
ALL = "all"
_HERE = Path(__file__).parent
_FILES = tuple(_HERE / f"{name}.py" for name in ("reading", "peers", "features", "judge"))
_CLUSTERS = ("sklearn.cluster",)
_CAUSAL = (*_CLUSTERS, "torch", "transformers")


@dataclass(frozen=True)
class Idea:
    """What one method does that another, ``against``, does not; ``says`` so in a sentence.

    ``group`` names those that are asked for together. ``method`` is None where it is one of the benchmark's own.
    """

    name: str
    against: str
    says: str
    group: str = ""
    method: Method | None = None


def is_idea(method: str) -> bool:
    """Whether a method of that name stands for an idea alone, and not beside the peers."""
    return method.startswith(PREFIX)


def _idea(
    name: str,
    against: str,
    says: str,
    draw: Draw,
    file: str,
    *,
    seeds: int | None = None,
    needs: tuple[str, ...] = _CLUSTERS,
    slow: bool = False,
) -> Idea:
    def ready(sample: Sample, place: Place) -> Fit:
        def fit(chosen: Positions, seed: int) -> Fitted:
            readers = Readers.of(place)
            labels = draw(sample.part(chosen), readers, seed)
            return Fitted(labels, readers.kept_seconds, readers.kept_mb)

        return fit

    about = _about(file, slow)
    method = Method(PREFIX + name, ready, about, needs, slow=slow, seeds=seeds, refits=False)
    return Idea(method.name, against, says, file, method)


def _about(file: str, slow: bool) -> Callable[[Place], dict[str, Any]]:
    """Not of this file, so that a sentence may change: an idea that changes takes another name."""

    def about(place: Place) -> dict[str, Any]:
        models = {"model": place.sentence_model} | ({"base model": place.base_model} if slow else {})
        files = dict.fromkeys(("columns", file))  # which the others draw on
        code = about_ours(
            *_FILES, *(_HERE / f"ideas_{name}.py" for name in files), without=("auto.py", "candidates.py", "peers.py")
        )
        return {**code, **models, "kmodes": versions_of("kmodes")}

    return about


def _tuned(name: str, against: str, says: str, *, causal: bool) -> Idea:
    def ready(sample: Sample, place: Place) -> Fit:
        def fit(chosen: Positions, seed: int) -> Fitted:
            from benchmarks.quality.ideas_tuned import contrasted

            return Fitted(contrasted(sample.part(chosen), place, seed, causal=causal))

        return fit

    def about(place: Place) -> dict[str, Any]:
        return {**_about("tuned", True)(place), "tokens": place.tokens}

    method = Method(PREFIX + name, ready, about, (*_CAUSAL, "peft"), slow=True, refits=False)
    return Idea(method.name, against, says, "tuned", method)


def _of_columns() -> list[Idea]:
    def idea(name: str, says: str, draw: Draw) -> Idea:
        return _idea(name, "fused", says, draw, "columns")

    other = columns.other_mixture
    return [
        Idea("fused", "onehot-kmeans", "A mixture with a part for each column instead of one-hot k-means."),
        idea("no-texts", "Columns of text are left out.", columns.no_texts),
        idea("texts-by-words", "Columns of text by the TF-IDF of their words, not by MiniLM.", columns.texts_by_words),
        idea("points-kmeans", "k-means on the points of the mixture.", columns.points_kmeans),
        idea("blocks-kmeans", "k-means on one block a column, balanced as in multiple factor analysis.",
             columns.weighted_blocks(0.0)),
        idea("no-codes", "Numbers with few values are no categories.", other(parts__FEW_NUMBERS=0)),
        idea("diagonal-only", "Numbers never correlate within a segment, whatever the BIC says.",
             other(mixture___structures=lambda _: (False,))),
        idea("no-floor", "Segments below 1 % of the rows are no worse than others.", other(mixture__LEAST_SHARE=0.0)),
        idea("no-prior", "No prior that keeps variances from 0.", other(mixture__PRIOR_SHARE=1e-9)),
        idea("one-view", "Starts by k-means of all dimensions alone, without those of each kind of column.",
             other(mixed__starts=columns.one_view)),
    ]  # fmt: skip


def _of_vectors(kind: str, read: Rows, told: str, *, slow: bool) -> list[Idea]:
    """Rows' vectors by a model beside the columns; ``told`` names the model."""
    needs = _CAUSAL if slow else _CLUSTERS

    def idea(name: str, against: str, says: str, draw: Draw) -> Idea:
        return _idea(f"{kind}-{name}", against, says, draw, "columns", needs=needs, slow=slow)

    blocks = PREFIX + "blocks-kmeans"
    return [
        idea("beside", "fused", f"{told} as one more part of the mixture.", columns.beside_mixture(read)),
        *(
            idea(f"block-{weight}", blocks, f"{told} as one more block, of weight {weight}.",
                 columns.weighted_blocks(weight, read))
            for weight in (0.5, 1.0, 2.0)
        ),
    ]  # fmt: skip


def _of_spread(kind: str, read: Rows, against: str, told: str, *, slow: bool) -> list[Idea]:
    """Rows' vectors by a model, spread out otherwise before k-means."""
    needs = _CAUSAL if slow else _CLUSTERS

    def idea(name: str, says: str, by: rows.Spread) -> Idea:
        return _idea(f"{kind}-{name}", against, says, rows.spread(read, by), "rows", needs=needs, slow=slow)

    return [
        idea("unit", f"{told}, centred and scaled to length 1.", rows.unit),
        idea("whitened", f"{told}, 16 principal components of equal variance.", rows.whitened),
        idea("minus-1", f"{told} without their first principal direction.", rows.without_first(1)),
        idea("minus-3", f"{told} without their first three principal directions.", rows.without_first(3)),
    ]


def _of_reading() -> list[Idea]:
    # Each reads the rows anew, which is what takes the time: the rows of one seed.
    def idea(name: str, says: str, draw: Draw) -> Idea:
        return _idea(name, "minilm-kmeans", says, draw, "rows", seeds=1)

    return [
        idea("orders-averaged", "MiniLM rows, the mean over four orders of the columns.", rows.orders_averaged),
        idea("orders-by-row", "MiniLM rows, each read in an order of its own.", rows.orders_by_row),
        idea("numbers-relative", "MiniLM rows with numbers as quantiles in words, such as `high (top 20 percent)`.",
             rows.numbers_relative),
        idea("numbers-in-words", "MiniLM rows with numbers in words, such as `forty-one`.", rows.numbers_in_words),
    ]  # fmt: skip


def _of_views() -> list[Idea]:
    def idea(name: str, against: str, says: str, draw: Draw, seeds: int | None = None) -> Idea:
        return _idea(name, against, says, draw, "views", seeds=seeds, needs=(*_CLUSTERS, "kmodes.kprototypes"))

    by_bits, choose = PREFIX + "choose-bits", "Of the candidates of `auto`, the one with the"
    return [
        Idea(DEFAULT, "fused", "Of several ways the one that saves the most bits, not always the mixture."),
        idea("consensus", "fused", "Average linkage of how often mixture, one-hot k-means and MiniLM rows agree.",
             views.consensus),
        idea("fused-graph", "fused", "Spectral clustering of the mean of two graphs: Gower distance and MiniLM rows.",
             views.fused_graph),
        idea("choose-bits", DEFAULT, f"{choose} most bits saved, drawn by the benchmark's own peers.",
             views.chosen_by(views.by_bits)),
        idea("choose-silhouette", by_bits, f"{choose} highest Gower silhouette.", views.chosen_by(views.by_silhouette)),
        idea("choose-separation", by_bits, f"{choose} highest separation.", views.chosen_by(views.by_separation)),
        idea("choose-stability", by_bits, f"{choose} most stable segments on subsets.",
             views.chosen_by(views.by_stability), seeds=2),
    ]  # fmt: skip


def _of_language_models() -> list[Idea]:
    causal, words = PREFIX + "causal-rows", "Rows by the untuned causal language model"
    read: Rows = Readers.causal_rows

    def middle(readers: Readers, sample: Sample) -> Any:
        return readers.causal_rows(sample, MIDDLE)

    return [
        _idea("causal-rows", "minilm-kmeans", f"{words} instead of MiniLM.", rows.spread(read), "rows",
              needs=_CAUSAL, slow=True),
        _idea("causal-middle", causal, f"{words}, its middle layer instead of the last.", rows.spread(middle), "rows",
              needs=_CAUSAL, slow=True),
        *_of_spread("causal", read, causal, words, slow=True),
        *_of_vectors("causal", read, words, slow=True),
        Idea("erasmo", causal, "The causal language model fine-tuned on the rows."),
        Idea("erasmo-nv", "erasmo", "The same with numbers in words."),
        _tuned("contrast-minilm", "minilm-kmeans", "MiniLM tuned to know a row again with its columns shuffled and "
               "a fifth of them gone.", causal=False),
        _tuned("contrast-causal", causal, "The causal language model tuned in the same way.", causal=True),
    ]  # fmt: skip


IDEAS: tuple[Idea, ...] = (
    *_of_columns(),
    *_of_vectors("rows", Readers.minilm, "MiniLM rows", slow=False),
    *_of_spread("rows", Readers.minilm, "minilm-kmeans", "MiniLM rows", slow=False),
    *_of_reading(),
    *_of_views(),
    *_of_language_models(),
)
IDEA_METHODS: dict[str, Method] = {idea.name: idea.method for idea in IDEAS if idea.method is not None}
GROUPS = tuple(dict.fromkeys(idea.group for idea in IDEAS if idea.group))


def ideas_named(groups: Sequence[str], *, full: bool = False) -> list[str]:
    """The names of the methods of groups of ideas, or of ALL; the slow ones with ``full`` alone.

    Raises ErasmoError for an unknown group.
    """
    if unknown := [name for name in groups if name not in (ALL, *GROUPS)]:
        raise ErasmoError(f"Got ideas {unknown[0]!r}", expected=f"one of: {', '.join((ALL, *GROUPS))}")
    asked = {idea.name for idea in IDEAS if ALL in groups or idea.group in groups}
    return [name for name, method in IDEA_METHODS.items() if name in asked and (full or not method.slow)]
