"""When a dataset is refreshed, what a change costs, what is fit to publish, and who is told of a failure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from erasmo_dagster.settings.base import Duration, Settings, Strings

# Those that compare segments with the dataset's `label`.
LabelFigure = Literal[
    "ari",
    "nmi",
    "ami",
    "homogeneity",
    "completeness",
    "v_measure",
    "accuracy",
    "f1_weighted",
    "f1_macro",
    "accuracy_majority",
    "f1_weighted_majority",
    "accuracy_centroid",
    "f1_weighted_centroid",
]
# Those of every cell of an experiment, which has a column for each.
Figure = Literal["silhouette", "calinski_harabasz", "davies_bouldin", "gower_silhouette", LabelFigure]
# A version's are more: they take seconds of a large table, too many for a grid of cells.
GateFigure = Literal[
    Figure,
    "separation",
    "separation_p",
    "tree_accuracy",
    "stability",
    "stability_split_half",
    "stability_seeds",
    "stability_worst_segment",
    "stability_orders",
]


class RefreshSettings(Settings):
    """What starts a run of the dataset, and whether it refreshes or retrains."""

    on_change: bool = Field(True, description="Start a run when the source has changed; false leaves it to `cron`.")
    cron: str | None = Field(
        None, description="Run at these times, whatever the source: five fields, such as `0 6 * * 1-5`."
    )
    timezone: str = Field("UTC", description="Time zone of `cron`, such as `Europe/Rome`.")
    retrain: Literal["always", "drift", "never"] = Field(
        "drift",
        description="What a changed source costs: `drift` re-embeds new and changed rows and retrains when the table "
        "has drifted, `always` retrains, `never` only ever re-embeds.",
    )
    changed_share: float = Field(
        0.2, gt=0, le=1, description="Retrain when this share of rows is new or changed since the last training."
    )
    psi: float = Field(
        0.2, gt=0, description="Retrain when the population stability index of the segment sizes passes this."
    )
    beyond_share: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Retrain when this share of new rows lies beyond the 99th percentile of the training rows' "
        "distances in their segment.",
    )
    beyond_rows: int = Field(50, ge=1, description="New rows from which on `beyond_share` counts.")
    verify: Duration = Field(
        timedelta(days=1),
        description="Read and hash the source this often even where its files' size and time say that it is as it was.",
    )
    updated_at: str | None = Field(
        None,
        min_length=1,
        description="Column that grows with every change. A source with as many rows and the same highest value is "
        "then taken as unchanged until the next `verify`, without hashing it.",
    )
    max_age: Duration | None = Field(
        None, description="A changed source may wait this long for its refresh before `erasmo status` calls it stale."
    )
    retries: int = Field(3, ge=0, le=20, description="Times that a failed run is tried again on the same source.")
    backoff: Duration = Field(
        timedelta(minutes=1), description="Wait before the first retry; it doubles with each further one."
    )

    @field_validator("cron")
    @classmethod
    def _cron_has_five_fields(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                CronSim(value, datetime(2000, 1, 1))
            except CronSimError as error:
                raise ValueError(f"got cron {value!r}, expected five fields such as `0 6 * * 1-5`") from error
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"got time zone {value!r}, expected one such as Europe/Rome")
        return value


class GateSettings(Settings):
    """What a version must show before analysts see it."""

    min_segment_size: int = Field(1, ge=1, description="No segment may have fewer rows.")
    floors: dict[GateFigure, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        default_factory=dict,
        description="Worst value that a figure may have, by its name; for davies_bouldin and separation_p, where lower "
        "is better, the highest.",
    )
    max_drop: float = Field(
        0.05,
        ge=0,
        le=2,
        description="How much lower than the published version's the silhouette under Gower distance may be, on the "
        "same rows.",
    )


class NotifySettings(Settings):
    """Who is told when a version is blocked or the last retry has failed."""

    webhook: str | None = Field(
        None,
        description="http(s) address that gets a POST with JSON. `${VARIABLE}` takes a secret from the environment.",
    )
    headers: dict[str, str] = Field(
        default_factory=dict, description="Headers of the POST; `${VARIABLE}` as in `webhook`."
    )
    command: Strings = Field((), description="Program and its arguments; it gets the same JSON on its standard input.")

    @model_validator(mode="before")
    @classmethod
    def _somebody(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("webhook") and not data.get("command"):
            raise ValueError("expected `webhook` or `command`")
        return data
