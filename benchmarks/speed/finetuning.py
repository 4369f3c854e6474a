"""Fine-tuning: this project, transformers' Trainer and the first paper's procedure, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.speed.results import middle
from benchmarks.speed.setting import Bench
from benchmarks.speed.trainers import TRAINERS, Job, run_alone
from erasmo_dagster import progress
from erasmo_dagster.method.textual import write_clauses
from erasmo_dagster.settings import AdapterSettings

TABLE = "bank"
_HELD_OUT = 64


@dataclass(frozen=True)
class _Plan:
    """Rounds; rows that this project and the Trainer train on in each, and rows of the paper's one step.

    ``loss_rows`` are trained on once more by both, to compare the loss on the same held-out rows; 0: not compared.
    """

    rounds: int
    rows: int
    paper_rows: int
    loss_rows: int


_PLANS = {
    "quick": _Plan(rounds=1, rows=24, paper_rows=2, loss_rows=0),
    "default": _Plan(rounds=3, rows=96, paper_rows=8, loss_rows=400),
    "full": _Plan(rounds=5, rows=96, paper_rows=8, loss_rows=400),
}


def measure(bench: Bench) -> Iterator[dict[str, Any]]:
    """The figures after every round with what is known by then.

    ``vs_paper`` and ``vs_trainer`` are ratios of rows a second, medians over the rounds; ``peak_mb`` is the most memory
    that this project's process held (of the others: under ``peers``). ``tokens_per_s`` counts no padding.
    ``eval_loss`` is that of this project after ``loss_rows`` rows, ``eval_loss_vs_trainer`` its ratio to the Trainer's.
    """
    plan = _PLANS[bench.effort]
    rounds: list[dict[str, Any]] = []
    losses: dict[str, Any] = {}
    sample = bench.tables.sample(TABLE, bench.seed, max(plan.rows, plan.loss_rows + _HELD_OUT))
    clauses = write_clauses(sample.frame, sample.plan).to_list()

    def job(rows: int, held_out: int, seed: int) -> Job:
        taken = clauses[: rows + held_out]
        settings = AdapterSettings(
            max_tokens=None,
            epochs=1,
            eval_fraction=held_out / len(taken),
            eval_rows=max(1, held_out),
            eval_every=1_000_000,  # before the first step and after the last one
            device=bench.device,
        )
        return Job(taken, sample.frame[: len(taken)], bench.base(), settings, seed, bench.threads, plan.paper_rows)

    def piece(name: str, work: Callable[[], Job], **key: Any) -> dict[str, Any]:
        about = {"part": "finetuning", "rows": sample.id, "trainer": name, **key}
        return bench.pieces.measured(lambda: run_alone(name, work()), **about)

    with progress.bar("fine-tuning", plan.rounds * len(TRAINERS) + 2 * (plan.loss_rows > 0), "trainings") as shown:
        for number in range(plan.rounds):
            found = {}
            for name in TRAINERS:
                found[name] = piece(name, partial(job, plan.rows, 0, bench.seed + number), round=number)
                shown.update(1)
            rounds.append(found)
            yield _figures(rounds, losses)
        if plan.loss_rows:
            for name in ("ours", "trainer"):
                losses[name] = piece(name, partial(job, plan.loss_rows, _HELD_OUT, bench.seed), loss=plan.loss_rows)
                shown.update(1)
            yield _figures(rounds, losses)


def _figures(rounds: Sequence[dict[str, Any]], losses: dict[str, Any]) -> dict[str, Any]:
    def rates(name: str, what: str = "rows") -> list[float]:
        return [found[name][what] / found[name]["seconds"] for found in rounds]

    def peak(name: str) -> float:
        return max(float(found[name]["peak_mb"]) for found in [*rounds, losses] if name in found)

    own, tokens = rates("ours"), rates("ours", "tokens")
    figures: dict[str, Any] = {
        "vs_paper": middle([a / b for a, b in zip(own, rates("paper"), strict=True)], 2),
        "vs_trainer": middle(
            [a / b for a, b in zip(rates("ours", "tokens"), rates("trainer", "tokens"), strict=True)], 3
        ),
        "peak_mb": peak("ours"),
        "rows_per_s": middle(own, 3),
        "tokens_per_s": middle(tokens, 1),
        "peers": {
            "trainer": {
                "rows_per_s": middle(rates("trainer"), 3),
                "tokens_per_s": middle(rates("trainer", "tokens"), 1),
                "peak_mb": peak("trainer"),
            },
            "paper": {"rows_per_s": middle(rates("paper"), 4), "peak_mb": peak("paper")},
        },
    }
    if losses:
        mine, theirs = losses["ours"], losses["trainer"]
        figures |= {
            "loss_rows": mine["rows"],
            "eval_loss": round(mine["eval_loss"], 5),
            "eval_loss_vs_trainer": round(mine["eval_loss"] / theirs["eval_loss"], 5),
        }
        figures["peers"]["trainer"]["eval_loss"] = round(theirs["eval_loss"], 5)
    return figures | {"pieces": [*rounds, *([losses] if losses else [])]}
