"""The real base model, fine-tuned on the penguins, through Dagster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from erasmo_dagster.settings import open_project
from erasmo_dagster.show_tables import open_published
from erasmo_dagster.template import create_project

pytestmark = pytest.mark.slow


def test_penguins_become_segments_that_know_their_island(tmp_path: Path) -> None:
    root = create_project(tmp_path / "project")
    home = Path(os.environ.get("ERASMO_SLOW_HOME") or tmp_path / "home")
    file = root / "datasets" / "penguins.yaml"
    by_vectors = "clustering: {method: kmeans++, k: 3}\n"  # so that the figures are about the model
    file.write_text(file.read_text().replace("max_tokens: 12000", "max_tokens: 4000") + by_vectors)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ERASMO_", "DAGSTER_", "OMP_"))}
    command = [sys.executable, "-m", "erasmo_dagster.cli", "run", "penguins"]
    environment = kept | {"ERASMO_HOME": str(home)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with open_published(open_project(root, home)) as con:
        assert con.execute("select count(*) from penguins_segmented").fetchall() == [(344,)]
        figures = dict(con.execute("select metric, value from segment_metrics").fetchall())
        purity = con.execute(
            "select sum(n) / 344 from (select max(n) n from"
            " (select segment_id, sex, count(*) n from penguins_segmented group by all) group by segment_id)"
        ).fetchall()
    # Any model that reads the rows groups them better than chance; a broken pooling or loading does not.
    assert figures["silhouette"] > 0.05
    assert figures["ari"] > 0.05 or purity[0][0] > 0.6
    training = next(home.glob("artifacts/penguins/*/adapter/training.json")).read_text()
    from erasmo_dagster.method.training import TrainingResult

    result = TrainingResult.model_validate_json(training)
    assert result.first_eval_loss is not None
    assert result.eval_loss is not None
    assert result.eval_loss < result.first_eval_loss - 0.5
    assert 4000 <= result.tokens < 6000
