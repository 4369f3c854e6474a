"""The results as tables, for a terminal and for a page, and what is asked beside what is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.quality.tables import NONE, Table

Results = Mapping[str, Any]
_LISTED = ("text", "lineage", "precision")
_MADE = "synthetic-"


Figure = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    """A figure that is asked for: what it has to be at the least or at the most, and how it is written.

    ``rows`` gives how many rows it was measured on, and ``asked_of`` how many it is asked of where it is of so many.
    """

    what: str
    figure: Figure
    rows: Figure
    least: float | None = None
    most: float | None = None
    form: str = "{:,.2f}"
    asked_of: int | None = None

    @property
    def asked(self) -> str:
        """The bound in words."""
        word, bound = ("at least", self.least) if self.least is not None else ("at most", self.most)
        return f"{word} {bound:,}" + (f" of {self.asked_of:,} rows" if self.asked_of else "")

    def reached(self, found: float) -> bool:
        """Whether a figure is within the bound."""
        return (self.least is None or found >= self.least) and (self.most is None or found <= self.most)

    def line(self, results: Results) -> tuple[str, str, str, str, str] | None:
        """What is asked, the bound, the figure, its rows and whether it is enough; None where it was not measured.

        A figure of other rows than it is asked of tells nothing about the bound.
        """
        value, rows = self.figure(results), self.rows(results)
        if value is None:
            return None
        enough = "yes" if self.reached(value) else "no"
        if self.asked_of is not None and rows != self.asked_of:
            enough = NONE
        return self.what, self.asked, self.form.format(value), _shown(rows, "{:,.0f}"), enough


def _at(*keys: str | int) -> Figure:
    """The number at a path of keys, None where nothing is there; a made table counts for the one that it is like."""

    def found(results: Results) -> float | None:
        value: Any = results
        for key in keys:
            if isinstance(key, int):
                value = value[key] if isinstance(value, list) and len(value) > key else None
            elif isinstance(value, Mapping):
                value = value.get(key, value.get(f"{_MADE}{key}"))
            else:
                return None
        return float(value) if isinstance(value, int | float) else None

    return found


def _of_tables(figure: str, pick: Callable[..., Any], told: str = "") -> Figure:
    """The figure of the table that ``pick`` takes by it; or what else is ``told`` of that one."""

    def found(results: Results) -> float | None:
        tables = [own for own in results.get("embedding", {}).values() if _at(figure)(own) is not None]
        return _at(told or figure)(pick(tables, key=_at(figure))) if tables else None

    return found


def _ratio(one: Figure, other: Figure) -> Figure:
    def found(results: Results) -> float | None:
        above, below = one(results), other(results)
        return above / below if above is not None and below else None

    return found


def _embedding(table: str, words: str, figure: str, least: float) -> Target:
    rows = _at("embedding", table, "rows")
    return Target(f"embedding, {table}: {words}", _at("embedding", table, figure), rows, least=least)


_TRAINED = _at("finetuning", "pieces", 0, "ours", "rows")
_PEAK = _at("finetuning", "peak_mb")
TARGETS = (
    _embedding("bank", "share of the ceiling", "share_of_ceiling", 0.75),
    _embedding("mushroom", "share of the ceiling", "share_of_ceiling", 0.6),
    _embedding("clothing", "times sentence-transformers", "vs_sentence_transformers", 0.95),
    _embedding("bank", "times the paper's procedure", "vs_paper", 25),
    _embedding("mushroom", "times the paper's procedure", "vs_paper", 60),
    Target(
        "embedding: share of the matrix peak, the least of all tables",
        _of_tables("share_of_peak", min),
        _of_tables("share_of_peak", min, "rows"),
        least=0.55,
    ),
    Target(
        "embedding: largest difference of vectors",
        _of_tables("max_abs_diff", max),
        _of_tables("max_abs_diff", max, "rows"),
        most=1e-4,
        form="{:.1e}",
    ),
    Target("fine-tuning: times the paper's procedure (rows/s)", _at("finetuning", "vs_paper"), _TRAINED, least=8),
    Target("fine-tuning: times the Trainer (tokens/s)", _at("finetuning", "vs_trainer"), _TRAINED, least=1.15),
    Target(
        "fine-tuning: memory over the Trainer's",
        _ratio(_PEAK, _at("finetuning", "peers", "trainer", "peak_mb")),
        _TRAINED,
        most=1,
    ),
    Target("fine-tuning: memory in MB", _PEAK, _TRAINED, most=3_000, form="{:,.0f}"),
    Target(
        "fine-tuning: eval loss over the Trainer's",
        _at("finetuning", "eval_loss_vs_trainer"),
        _at("finetuning", "loss_rows"),
        most=1.01,
        form="{:.4f}",
    ),
    Target(
        "text: rows/s of 16 columns",
        _at("text", "sixteen_columns", "rows_per_s"),
        _at("text", "sixteen_columns", "rows"),
        least=300_000,
        form="{:,.0f}",
    ),
    Target(
        "text: rows/s of bank, numbers in words",
        _at("text", "bank_in_words", "rows_per_s"),
        _at("text", "bank_in_words", "rows"),
        least=50_000,
        form="{:,.0f}",
    ),
    Target(
        "clustering: k-means of 64 dimensions, in seconds",
        _at("clustering", "scale", "kmeans", "1000000", "seconds"),
        lambda results: 1_000_000,
        most=60,
        form="{:,.0f}",
        asked_of=1_000_000,
    ),
    Target(
        "lineage: a refresh over the first run",
        _ratio(_at("lineage", "refresh_s"), _at("lineage", "first_s")),
        _at("lineage", "rows"),
        most=0.05,
        form="{:.3f}",
        asked_of=10_000,
    ),
)


def all_tables(results: Results) -> list[Table]:
    """Every table of a results file that has rows."""
    tables = [make(results) for make in (targets, embedding, rates, finetuning, clustering, closeness, memory, workers)]
    tables += [listed(name)(results) for name in _LISTED]
    return [table for table in [*tables, errors(results)] if table.rows]


def targets(results: Results) -> Table:
    """What is asked beside what was reached; a made table stands for the one that it is like, and is called so."""
    made = any(name.startswith(_MADE) for name in results.get("embedding", {}))
    lines = []
    for target in TARGETS:
        if (line := target.line(results)) is not None:
            what = line[0].replace("embedding, ", f"embedding, {_MADE}") if made else line[0]
            lines.append((what, *line[1:]))
    return Table("Asked and reached", ("what", "asked", "reached", "rows", "enough"), tuple(lines))


def embedding(results: Results) -> Table:
    """The ratios of embedding, table by table."""
    columns = (
        *(("rows", "{:,.0f}"), ("vs_paper", "{:.1f}"), ("vs_sentence_transformers", "{:.2f}"), ("ceiling", "{:.2f}")),
        *(("share_of_ceiling", "{:.2f}"), ("share_of_peak", "{:.2f}"), ("max_abs_diff", "{:.1e}")),
    )
    head = ("table", "rows", "times the paper", "times s-t", "ceiling", "share of it", "share of peak", "difference")
    note = (
        "Ratios of rows a second, medians of rounds. `ceiling`: all tokens over those of distinct prefixes; `share of "
        "it`: what of it the ratio to sentence-transformers (s-t) reaches. `share of peak`: operations that had to be "
        "computed a second, over a matrix product's. `difference`: the largest between the vectors of both."
    )
    return Table("Embedding", head, tuple(_rows(results, columns)), note)


def rates(results: Results) -> Table:
    """Rows and tokens a second of embedding."""
    columns = (
        *(("rows_per_s", "{:,.1f}"), ("sentence_transformers_rows_per_s", "{:,.2f}"), ("paper_rows_per_s", "{:.3f}")),
        *(("tokens_per_s", "{:,.0f}"), ("distinct_tokens_per_s", "{:,.0f}"), ("peak_gflops", "{:,.0f}")),
    )
    head = ("table", "rows/s", "s-t rows/s", "paper rows/s", "tokens/s", "distinct tokens/s", "peak GFLOP/s")
    return Table("Embedding, rows and tokens a second", head, tuple(_rows(results, columns)))


def _rows(results: Results, columns: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, ...]]:
    for name, told in results.get("embedding", {}).items():
        if isinstance(told, Mapping):
            yield (name, *(_shown(told.get(key), form) for key, form in columns))


def finetuning(results: Results) -> Table:
    """Fine-tuning: each trainer's speed and memory."""
    told = results.get("finetuning", {})
    peers = told.get("peers", {})
    lines = [
        (
            name,
            _shown(own.get("rows_per_s"), "{:.3f}"),
            _shown(own.get("tokens_per_s"), "{:,.0f}"),
            _shown(own.get("peak_mb"), "{:,.0f}"),
            _shown(own.get("eval_loss"), "{:.4f}"),
        )
        for name, own in (
            ("this project", told),
            ("Trainer", peers.get("trainer", {})),
            ("paper", peers.get("paper", {})),
        )
        if own.get("rows_per_s")
    ]
    note = (
        "Tokens are those of the rows, without padding. Memory is the most that the process held, its libraries "
        f"included. The loss is on the same held-out rows after {told['loss_rows']:,} rows."
        if told.get("loss_rows")
        else "Tokens are those of the rows, without padding."
    )
    return Table("Fine-tuning", ("trainer", "rows/s", "tokens/s", "peak MB", "eval loss"), tuple(lines), note)


def clustering(results: Results) -> Table:
    """Seconds and memory of clustering as rows grow."""
    return _by_rows("Clustering", "engine", results.get("clustering", {}).get("scale", {}))


def closeness(results: Results) -> Table:
    """How near the clusterings of groups of rows come to exact ones."""
    told = results.get("clustering", {}).get("closeness", {})
    return Table("Clusterings of groups of rows, beside exact ones", ("figure", "value"), tuple(_lines(told)))


def memory(results: Results) -> Table:
    """Peak memory of every stage as rows grow."""
    stages: dict[str, dict[str, Any]] = {}
    for rows, told in results.get("memory", {}).items():
        for stage, figures in told.items() if isinstance(told, Mapping) else ():
            stages.setdefault(stage, {})[rows] = figures
    return _by_rows("Memory of the stages", "stage", stages)


def _by_rows(title: str, what: str, told: Mapping[str, Any]) -> Table:
    """Name -> rows -> ``seconds`` and ``peak_mb``, as a table of a column for each number of rows."""
    sizes = sorted({int(rows) for own in told.values() for rows in own})
    lines = []
    for name, own in told.items():
        cells = []
        for rows in sizes:
            found = own.get(str(rows), {})
            cells += [_shown(found.get("seconds"), "{:,.1f}"), _shown(found.get("peak_mb"), "{:,.0f}")]
        lines.append((name, *cells))
    head = [what]
    for rows in sizes:
        head += [f"{rows:,} rows: s", "MB"]
    note = "Memory is the most that a process of its own held, its libraries included."
    return Table(title, tuple(head), tuple(lines), note)


def workers(results: Results) -> Table:
    """What one worker of Ray and two do, beside processes without it."""
    ways = {
        "local": "one process",
        "side_by_side": "two processes that share nothing",
        "ray_1": "Ray, one worker",
        "ray_2": "Ray, two workers",
    }
    columns = (
        *(("start_s", "{:,.1f}"), ("few_s", "{:,.1f}"), ("seconds", "{:,.1f}")),
        *(("driver_mb", "{:,.0f}"), ("worker_mb", "{:,.0f}"), ("ray_mb", "{:,.0f}")),
    )
    works = {
        "embedding": ("embedding", "texts"),
        "transport": ("vectors that cost nothing", "texts"),
        "finetuning": ("fine-tuning", "tokens"),
        "tokenizing": ("tokenizing", "tokens"),
    }
    lines = []
    for name, (what, unit) in works.items():
        found = results.get("workers", {}).get(name, {})
        for way, title in ways.items():
            if told := found.get(way):
                rate, first = found["rate"][way], found["rate"].get("local") or found["rate"].get("ray_1")
                cells = (_shown(told.get(key), form) for key, form in columns)
                times = "1" if rate == first else f"{rate / first:.2f}"
                lines.append((what, title, f"{told['work']:,} {unit}", f"{rate:,.1f}", times, *cells))
    head = (
        *("what", "by", "work", "a second", "times the first", "start s", "16 texts s", "work s"),
        *("run MB", "worker MB", "Ray MB"),
    )
    note = (
        "Every worker and process has one core. `start`: until the cluster is there and attached to; `16 texts`: what "
        "workers, the model in each and sixteen texts take, which is taken off the rate; `run`: memory of the run's "
        "own process; `worker`: of the largest worker; `Ray`: of all its other processes together."
    )
    return Table("One worker of Ray and two", head, tuple(lines), note)


def listed(part: str) -> Callable[[Results], Table]:
    """A table maker for a part whose figures are listed as they are."""

    def table(results: Results) -> Table:
        return Table(part.capitalize(), ("figure", "value"), tuple(_lines(results.get(part, {}))))

    return table


def errors(results: Results) -> Table:
    """The parts that failed, and why."""
    lines = [(name, told["error"]) for name, told in results.items() if isinstance(told, Mapping) and "error" in told]
    return Table("Without a result", ("part", "error"), tuple(lines))


def _lines(told: Any) -> list[tuple[str, str]]:
    return [(name, _number(value)) for name, value in _flat(told) if name != "error"]


def _flat(told: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(told, Mapping):
        for key, value in told.items():
            if key != "pieces":
                yield from _flat(value, f"{name}, {key}" if name else str(key))
    elif not isinstance(told, list):
        yield name, told


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NONE if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{0 if abs(value) >= 1_000 else 3}f}"


def _shown(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)
