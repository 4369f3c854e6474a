"""The moments at which a run is killed, drawn so that every stage gets its share."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Stage -> its points, each with the decision that it needs (None: either).
POINTS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "source_table": (("begin", None), ("write", None), ("before commit", None), ("after commit", None)),
    "refresh_plan": (("write", "refresh"), ("before commit", None), ("after commit", None)),
    "text_corpus": (
        ("begin", None),
        ("folder", None),
        ("write", None),
        ("before commit", None),
        ("after commit", None),
    ),
    "adapter": (
        ("step", "retrain"),
        ("checkpoint", "retrain"),
        ("folder", "retrain"),
        ("before commit", None),
        ("after commit", None),
    ),
    "embeddings": (("begin", None), ("write", None), ("before commit", None), ("after commit", None)),
    "segments": (
        ("folder", None),
        ("write", None),
        ("before commit", None),
        ("after commit", None),
    ),
    "segment_metrics": (("write", None), ("before commit", None), ("after commit", None), ("gate", None)),
    "segment_profile": (("write", None), ("before commit", None), ("after commit", None)),
    "published_segments": (
        ("half the file", None),
        ("half the marts", None),
        ("whole file", None),
        ("before commit", None),
        ("between commit and rename", None),
        ("after rename", None),
        ("removal", None),
    ),
}
CLOCK = "clock"
_ROUND = 12  # one for each of the 9 stages, one more for publishing, and a sixth by the clock
_FIRST = {"embeddings": ("write",), "published_segments": ("half the marts", "between commit and rename")}


@dataclass(frozen=True)
class Moment:
    """When a run is killed.

    ``stage`` is ``clock`` where a timer kills it after ``share`` (0 to 1) of the seconds that a whole run takes.
    ``skip`` is how many times the point passes by before. ``decision`` is what the change of the source shall cost,
    and ``retried`` whether Dagster's own retry of the dead run comes before the next tick.
    """

    number: int
    stage: str
    point: str
    decision: str
    share: float = 0.0
    skip: int = 0
    retried: bool = False

    @property
    def name(self) -> str:
        """The moment for people."""
        return f"at {self.share:.0%} of the time" if self.stage == CLOCK else f"{self.stage}: {self.point}"


def draw(kills: int, seed: int) -> list[Moment]:
    """``kills`` moments; every 12 have one in each stage, one more in publishing and two by the clock."""
    random_ = random.Random(seed)
    decks = {stage: _deck(stage, random_) for stage in POINTS}
    drawn: list[tuple[str, str, str | None]] = []
    while len(drawn) < kills:
        stages = [*POINTS, "published_segments", CLOCK, CLOCK]
        assert len(stages) == _ROUND
        round_ = [
            (stage, *_next(decks[stage], stage, random_)) if stage != CLOCK else (CLOCK, "", None) for stage in stages
        ]
        random_.shuffle(round_)
        drawn += round_
    moments = []
    for number, (stage, point, needs) in enumerate(drawn[:kills], start=1):
        moments.append(
            Moment(
                number=number,
                stage=stage,
                point=point,
                decision=needs or ("retrain" if number % 3 == 0 else "refresh"),
                share=random_.uniform(0.03, 0.95) if stage == CLOCK else 0.0,
                skip=random_.randrange(4, 12)
                if point == "step"
                else random_.randrange(3)
                if point == "checkpoint"
                else 0,
                retried=number % 4 == 0,
            )
        )
    return moments


def _deck(stage: str, random_: random.Random) -> list[tuple[str, str | None]]:
    """A stage's points in a seeded order; some come first, so that few kills have them too. Taken from the end."""
    deck = list(POINTS[stage])
    random_.shuffle(deck)
    return sorted(deck, key=lambda point: point[0] in _FIRST.get(stage, ()))


def _next(deck: list[tuple[str, str | None]], stage: str, random_: random.Random) -> tuple[str, str | None]:
    if not deck:
        deck += random_.sample(POINTS[stage], len(POINTS[stage]))
    return deck.pop()
