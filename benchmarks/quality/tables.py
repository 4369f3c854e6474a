"""The results as tables, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from benchmarks.quality.ideas import IDEAS, PREFIX, is_idea
from benchmarks.quality.methods import DEFAULT, PEER_NAMES
from benchmarks.quality.results import COSTS, FIGURES, Row, means

TIE = 0.01
CLEAR = 0.02  # difference of mean ARI by which an idea is better or worse on a table
FUSED = "fused"
NONE = "–"


@dataclass(frozen=True)
class Table:
    """Cells as text; ``note`` says below them how to read them."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Duel:
    """Tables on which one method's mean ARI is above, beside (within 0.01) and below another's."""

    wins: int
    ties: int
    losses: int

    @property
    def tables(self) -> int:
        """Tables on which both have a result."""
        return self.wins + self.ties + self.losses


def ari_by_table(rows: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Table -> method -> the ARI of every seed that has one; tables and methods in the rows' order."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        own = found.setdefault(row.dataset, {}).setdefault(row.method, [])
        if row.error is None and row.ari is not None:
            own.append(row.ari)
    return found


def mean_aris(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Table -> method -> mean ARI over the seeds, of the methods that have one."""
    return {
        table: {method: fmean(values) for method, values in methods.items() if values}
        for table, methods in ari_by_table(rows).items()
    }


def mean_ranks(rows: Sequence[Row]) -> dict[str, float]:
    """Method -> its mean rank by mean ARI over the tables, 1 the best; equals share the mean of their ranks.

    A method that was due on a table and has no result there ranks last on it; tables without any result do not count.
    """
    found: dict[str, list[float]] = {}
    aris = mean_aris(rows)
    for table, due in ari_by_table(rows).items():
        if not aris[table]:
            continue
        values = {method: aris[table].get(method, float("-inf")) for method in due}
        for method, value in values.items():
            above = sum(other > value for other in values.values())
            equal = sum(other == value for other in values.values())
            found.setdefault(method, []).append(above + (equal + 1) / 2)
    return {method: fmean(ranks) for method, ranks in found.items()}


def duel(rows: Sequence[Row], one: str, other: str) -> Duel:
    """How ``one`` stands against ``other``, on the tables on which both have a result."""
    gaps = [a[one] - a[other] for a in mean_aris(rows).values() if one in a and other in a]
    wins, losses = sum(gap > TIE + 1e-9 for gap in gaps), sum(gap < -TIE - 1e-9 for gap in gaps)
    return Duel(wins, len(gaps) - wins - losses, losses)


def oracle_gaps(rows: Sequence[Row], method: str = DEFAULT) -> dict[str, tuple[float, str, float]]:
    """Table -> ARI of ``method``, the best of the peers and `fused` there, and that one's ARI.

    The best is known by the label alone: an oracle, and no method.
    """
    gaps: dict[str, tuple[float, str, float]] = {}
    for table, aris in mean_aris(rows).items():
        others = {name: aris[name] for name in (*PEER_NAMES, FUSED) if name in aris and name != method}
        if method in aris and others:
            best = max(others, key=lambda name: others[name])
            gaps[table] = (aris[method], best, others[best])
    return gaps


def all_tables(rows: Sequence[Row]) -> list[Table]:
    """Everything that is printed of a run."""
    tables = [by_table(rows), overall(rows)] if any(not is_idea(row.method) for row in rows) else []
    if any(row.method == DEFAULT for row in rows):
        tables += [duels(rows), oracle(rows)]
    if any(is_idea(row.method) for row in rows):
        tables.append(ablation(rows))
    if any(row.error for row in rows):
        tables.append(errors(rows))
    return tables


def by_table(rows: Sequence[Row]) -> Table:
    """ARI of every method on every table, with the deviation over the seeds."""
    rows = without_ideas(rows)
    found = ari_by_table(rows)
    names = _methods(rows)
    aris = mean_aris(rows)
    lines = [(table, *(_spread(methods.get(name, [])) for name in names)) for table, methods in found.items()]
    if len(lines) > 1:
        averages = (_number(_mean(a[name] for a in aris.values() if name in a)) for name in names)
        lines.append(("mean", *averages))
    note = "The mean is over the tables on which a method has a result."
    return Table("ARI by table, mean ± standard deviation over the seeds", ("table", *names), tuple(lines), note)


def overall(rows: Sequence[Row]) -> Table:
    """The mean of every figure by method, the mean rank, and the mean ARI where all methods have a result."""
    rows = without_ideas(rows)
    found, ranks, names = means(rows), mean_ranks(rows), _methods(rows)
    aris = mean_aris(rows)
    shared = [a for a in aris.values() if all(name in a for name in names)]
    lines = [
        (
            name,
            str(found[name]["datasets"]),
            *(_number(found[name][figure]) for figure in FIGURES),
            _number(_mean(a[name] for a in shared)),
            _number(ranks.get(name), 2),
            *(_number(found[name][cost], 1) for cost in COSTS),
        )
        for name in sorted(names, key=lambda name: (ranks.get(name, float("inf")), names.index(name)))
    ]
    head = ("method", "tables", *FIGURES, "ari shared", "rank", *COSTS)
    note = (
        f"`ari shared` is over the {len(shared)} tables on which every method has a result. `rank` is the mean rank by "
        "ARI, 1 the best; a method without a result ranks last. `stability` is how far refits by two other seeds and "
        "on two subsets agree, `seeds` those by other seeds alone, `order` the share of rows in the same segment when "
        "the columns come from last to first."
    )
    return Table("Means over the tables", head, tuple(lines), note)


def duels(rows: Sequence[Row], one: str = DEFAULT) -> Table:
    """Wins, ties and losses of a method against every other one."""
    lines = []
    for other in _methods(without_ideas(rows)):
        if other != one:
            found = duel(rows, one, other)
            lines.append((other, *map(str, (found.wins, found.ties, found.losses, found.tables))))
    note = f"By mean ARI on the tables on which both have a result; a tie is a difference of at most {TIE}."
    return Table(f"{one} against each other method", ("method", "wins", "ties", "losses", "tables"), tuple(lines), note)


def oracle(rows: Sequence[Row], method: str = DEFAULT) -> Table:
    """How far a method is from the best peer of each table."""
    gaps = oracle_gaps(rows, method)
    lines = [
        (table, _number(own), best, _number(value), _number(own - value, 3, sign=True))
        for table, (own, best, value) in gaps.items()
    ]
    if gaps:
        own, value = fmean(gap[0] for gap in gaps.values()), fmean(gap[2] for gap in gaps.values())
        lines.append(("mean", _number(own), "", _number(value), _number(own - value, 3, sign=True)))
    note = f"The best of the seven peers and {FUSED} on each table is chosen by the label: no method can know it."
    return Table(
        f"{method} beside the best of each table", ("table", method, "best", "its ARI", "gap"), tuple(lines), note
    )


@dataclass(frozen=True)
class Gain:
    """An idea beside what it is compared with, on the seeds and tables on which both have a result.

    ``ari`` and ``gain`` are over tables the means over seeds; each has the deviation over the seeds of its mean over
    tables, None of one seed. ``better`` and ``worse`` count tables on which the gain is beyond 0.02.
    """

    ari: float
    ari_deviation: float | None
    gain: float
    gain_deviation: float | None
    better: int
    worse: int
    tables: int


def gain(rows: Sequence[Row], one: str, other: str) -> Gain | None:
    """What ``one`` has that ``other`` has not; None where they share no table."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        if row.method in (one, other) and row.error is None and row.ari is not None:
            found.setdefault(row.dataset, {}).setdefault(row.method, {})[row.seed] = row.ari
    pairs: dict[str, dict[int, tuple[float, float]]] = {}
    for table, methods in found.items():
        mine, theirs = methods.get(one, {}), methods.get(other, {})
        if shared := {seed: (ari, ari - theirs[seed]) for seed, ari in mine.items() if seed in theirs}:
            pairs[table] = shared
    if not pairs:
        return None
    ari, gains = ([fmean(pair[at] for pair in own.values()) for own in pairs.values()] for at in (0, 1))
    spread: list[float | None] = []
    for at in (0, 1):
        # Of the seeds that every table has, so that no table weighs in one seed alone.
        seeds = set.intersection(*(set(own) for own in pairs.values()))
        by_seed = [fmean(own[seed][at] for own in pairs.values()) for seed in sorted(seeds)]
        spread.append(stdev(by_seed) if len(by_seed) > 1 else None)
    better, worse = sum(g > CLEAR + 1e-9 for g in gains), sum(g < -CLEAR - 1e-9 for g in gains)
    return Gain(fmean(ari), spread[0], fmean(gains), spread[1], better, worse, len(pairs))


def ablation(rows: Sequence[Row]) -> Table:
    """What each idea adds or costs."""
    lines = []
    for idea in IDEAS:
        if (found := gain(rows, idea.name, idea.against)) is not None:
            ari = _with_deviation(found.ari, found.ari_deviation)
            difference = _with_deviation(found.gain, found.gain_deviation, sign=True)
            counts = map(str, (found.better, found.worse, found.tables))
            lines.append((_plain_name(idea.name), ari, _plain_name(idea.against), difference, *counts))
    note = (
        f"Mean ARI over the tables on which both have a result, ± the deviation over the seeds of that mean. `better` "
        f"and `worse` count the tables on which the difference is more than {CLEAR}."
    )
    head = ("idea", "ARI", "against", "difference", "better", "worse", "tables")
    return Table("What each idea adds or costs", head, tuple(lines), note)


def idea_list() -> str:
    """Every idea with its sentence, as a Markdown list."""
    return "\n".join(f"- {_plain_name(i.name)} (against {_plain_name(i.against)}): {i.says}" for i in IDEAS)


def _plain_name(method: str) -> str:
    return method.removeprefix(PREFIX)


def _with_deviation(value: float, deviation: float | None, *, sign: bool = False) -> str:
    return _number(value, sign=sign) + ("" if deviation is None else f" ± {deviation:.3f}")


def errors(rows: Sequence[Row]) -> Table:
    """Every reason of a failure on a table, once, with the methods that it is of."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.error:
            methods = found.setdefault((row.dataset, row.error), [])
            if row.method not in methods:
                methods.append(row.method)
    every = len(_methods(rows))
    lines = tuple(
        (table, "all" if len(methods) == every > 1 else ", ".join(methods), error)
        for (table, error), methods in found.items()
    )
    return Table("Without a result", ("table", "methods", "error"), lines)


def plain(table: Table) -> str:
    """Aligned text: the first column to the left, numbers to the right."""
    cells = [table.head, *table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.head))]
    right = [i > 0 and all(_is_number(row[i]) for row in table.rows) for i in range(len(table.head))]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([table.title, "", *lines, *(["", table.note] if table.note else [])])


def markdown(table: Table) -> str:
    """A Markdown table with its note."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table.head, *table.rows)]
    right = [i > 0 and all(_is_number(row[i]) for row in table.rows) for i in range(len(table.head))]
    marks = ["---:" if r else "---" for r in right]
    lines = [f"| {' | '.join(row)} |" for row in (cells[0], marks, *cells[1:])]
    return "\n".join([*lines, *(["", table.note] if table.note else [])])


def without_ideas(rows: Sequence[Row]) -> list[Row]:
    """The rows of the methods that stand beside the peers."""
    return [row for row in rows if not is_idea(row.method)]


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return _number(values[0]) if values else NONE
    return f"{_number(fmean(values))} ± {stdev(values):.3f}"


def _number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    if value is None:
        return NONE
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    return text.lstrip("+-") if not float(text.replace(",", "")) else text


def _is_number(cell: str) -> bool:
    return cell in ("", NONE) or cell.lstrip("+-")[:1].isdigit()


def rows_by_table(rows: Sequence[Row]) -> Mapping[str, int]:
    """Table -> the most rows that a method had there."""
    found: dict[str, int] = {}
    for row in rows:
        found[row.dataset] = max(found.get(row.dataset, 0), row.n or 0)
    return found
