"""Refresh or retrain: what a change of the source costs, by the policy in the dataset's YAML.

A refresh embeds new and changed rows with the adapter that stands and puts them into the segments that stand.
Retraining makes a new adapter and new segments. The population stability index and its thresholds are the customary
ones of credit scoring (Siddiqi 2006, "Credit Risk Scorecards", chapter 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from erasmo_dagster.settings import RefreshSettings

Mode = Literal["refresh", "retrain"]


class RowChanges(BaseModel):
    """How the source's rows differ from those of the published version, by their texts.

    ``since_training`` counts the rows of today that are new or read otherwise than at the last training: edits add up
    over refreshes.
    """

    model_config = ConfigDict(frozen=True)

    rows: int
    new: int
    changed: int
    gone: int
    since_training: int

    @property
    def sentence(self) -> str:
        """What changed, for people."""
        counts = ((self.new, "new"), (self.changed, "changed"), (self.gone, "gone"))
        told = [f"{count:,} {what}" for count, what in counts if count]
        if not told:
            return "no row reads otherwise"
        return " and ".join(filter(None, [", ".join(told[:-1]), told[-1]])) + " rows"


class Drift(BaseModel):
    """How far the rows of today are from those of the last training, once they are in the standing segments.

    ``psi`` compares the segments' sizes; ``beyond`` is the share of ``new_rows`` (new or changed since then) that lie
    beyond the 99th percentile of their segment's training rows.
    """

    model_config = ConfigDict(frozen=True)

    psi: float
    new_rows: int
    beyond: float


@dataclass(frozen=True)
class Grounds:
    """What is known before any row is embedded.

    ``stands`` is False where there is nothing to refresh (``why_not`` says why). ``settings`` and ``schema`` name what
    differs from the last training.
    """

    stands: bool
    why_not: str = ""
    forced: bool = False
    source_changed: bool = True
    settings: tuple[str, ...] = ()
    schema: tuple[str, ...] = ()


class Decision(BaseModel):
    """What happens to the dataset in this run, and why."""

    model_config = ConfigDict(frozen=True)

    mode: Mode
    reasons: tuple[str, ...]


def decide_by_grounds(grounds: Grounds, policy: RefreshSettings) -> Decision:
    """The decision from what is known at once: nothing stands, it is asked for, settings, schema, policy."""
    if not grounds.stands:
        return Decision(mode="retrain", reasons=(grounds.why_not,))
    if grounds.forced:
        return Decision(mode="retrain", reasons=("asked for by --retrain",))
    differing = [*(f"settings of {name} changed" for name in grounds.settings), *grounds.schema]
    if differing and policy.retrain != "never":
        return Decision(mode="retrain", reasons=tuple(differing))
    if policy.retrain == "always" and grounds.source_changed:
        return Decision(mode="retrain", reasons=("the source changed, and refresh.retrain is always",))
    if not grounds.source_changed:
        return Decision(mode="refresh", reasons=("the source is as it was", *_overruled(differing)))
    return Decision(mode="refresh", reasons=_overruled(differing))


def _overruled(differing: list[str]) -> tuple[str, ...]:
    return tuple(f"{reason}, but refresh.retrain is never" for reason in differing)


def decide_by_rows(decision: Decision, changes: RowChanges, policy: RefreshSettings) -> Decision:
    """The decision once the texts are compared: too many rows are new or changed since the last training."""
    if decision.mode == "retrain":
        return decision
    share = changes.since_training / changes.rows
    reason = (
        f"{share:.1%} of rows are new or changed since the last training"
        f" (refresh.changed_share {policy.changed_share:.1%})"
    )
    if share >= policy.changed_share and policy.retrain != "never":
        return Decision(mode="retrain", reasons=(reason,))
    return Decision(mode="refresh", reasons=(*decision.reasons, changes.sentence, reason))


def decide_by_drift(decision: Decision, drift: Drift, policy: RefreshSettings) -> Decision:
    """The decision once the rows are in the standing segments: they no longer fit them."""
    if decision.mode == "retrain":
        return decision
    psi = f"population stability index of the segment sizes {drift.psi:.3f} (refresh.psi {policy.psi:g})"
    beyond = (
        f"{drift.beyond:.1%} of {drift.new_rows} new rows lie beyond their segment"
        f" (refresh.beyond_share {policy.beyond_share:.1%}, from {policy.beyond_rows} rows on)"
    )
    passed = []
    if drift.psi > policy.psi:
        passed.append(psi)
    if drift.new_rows >= policy.beyond_rows and drift.beyond > policy.beyond_share:
        passed.append(beyond)
    if passed and policy.retrain != "never":
        return Decision(mode="retrain", reasons=tuple(passed))
    return Decision(mode="refresh", reasons=(*decision.reasons, psi, *([beyond] if drift.new_rows else [])))


class RefreshPlan(BaseModel):
    """A decision with all that the later stages need of it.

    ``standing`` is the version whose fitted state a refresh uses, ``fitted`` the one of the last training. ``settings``
    has a digest of each part of the settings as they were when the plan was made.
    """

    model_config = ConfigDict(frozen=True)

    decision: Decision
    forced: bool
    standing: int | None
    fitted: int | None
    settings: dict[str, str]
    changes: RowChanges | None = None
    drift: Drift | None = None
    embedded: int = 0

    @property
    def sentence(self) -> str:
        """The decision in one line."""
        what = f"refreshed with the training of version {self.fitted}"
        if self.decision.mode == "retrain":
            what = "retrained"
        return f"{what}: {'; '.join(self.decision.reasons)}"
