"""The job that takes one dataset from table to published segments."""

import dagster as dg

from erasmo_dagster.defs.assets import STAGE_ASSETS

segment_dataset = dg.define_asset_job(
    "segment_dataset",
    selection=dg.AssetSelection.assets(*STAGE_ASSETS),
    description="Source table to published segments, for one dataset.",
)
