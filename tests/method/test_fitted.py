"""What was fitted is saved and loaded whole, or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.drift import segment_reach
from erasmo_dagster.method.fitted import FittedClustering, FittedState
from erasmo_dagster.method.segment_model import FuzzyCenter, NearestCenter, SegmentModel
from erasmo_dagster.method.space import Space
from erasmo_dagster.method.tables.space import TableSpace
from erasmo_dagster.method.textual import TextPlan, fit_text, write_clauses
from erasmo_dagster.settings import ClusteringSettings, DatasetSettings

VECTORS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
FRAME = pl.DataFrame({"id": [1, 2, 3], "größe 🐧": [1.5, 2.0, None], "job": ["a", 'b "c"', "d"]})


@pytest.fixture(scope="module")
def plan() -> TextPlan:
    return fit_text(FRAME, DatasetSettings.model_validate({"source": {"path": "t.parquet"}, "key": "id"}))


def fitted(scale: str = "standard", **given: Any) -> FittedClustering:
    settings = ClusteringSettings.model_validate({"method": "kmeans++", "k": 3, "scale": scale} | given)
    result = cluster(VECTORS, settings, seed=0)
    return FittedClustering(
        settings=settings,
        model=result.model,
        k=result.k,
        segment_ids=tuple(range(5, 5 + result.k)),
        sizes=tuple(np.bincount(result.labels[result.labels >= 0]).tolist()),
        noise=int((result.labels < 0).sum()),
        reach=segment_reach(VECTORS, result.labels, result.model),
        stability={"stability": 0.1 + 0.2, "stability_error": 0.0},
        jaccard=tuple(1 / 3 + 0.1 * segment for segment in range(result.k)),
    )


@pytest.mark.parametrize("scale", ["none", "standard"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"method": "spectral", "affinity": "rbf", "reduce": {"method": "pca", "dimensions": 3}},
        {"method": "fuzzy_cmeans", "m": 1.3},
        {"method": "gaussian_mixture", "covariance": "tied"},
        {"method": "hdbscan", "min_cluster_size": 3, "min_samples": 2, "k": "auto"},
    ],
    ids=lambda given: given.get("method", "default"),
)
def test_a_round_trip_changes_nothing(given: dict[str, Any], scale: str, plan: TextPlan, tmp_path: Path) -> None:
    saved = fitted(scale, **given)
    FittedState(text=plan, clustering=saved).save(tmp_path / "state")
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["state.json", "state.safetensors"]
    loaded = FittedState.load(tmp_path / "state")
    assert loaded.text == plan
    assert write_clauses(FRAME, loaded.text).to_list() == write_clauses(FRAME, plan).to_list()
    assert loaded.clustering is not None
    assert loaded.clustering.settings == saved.settings
    assert loaded.clustering.k == saved.k
    assert (loaded.clustering.segment_ids, loaded.clustering.sizes) == (saved.segment_ids, saved.sizes)
    assert sum(loaded.clustering.sizes) + loaded.clustering.noise == len(VECTORS)
    assert sum(loaded.clustering.rows_by_id.values()) == len(VECTORS)
    assert loaded.clustering.stability == saved.stability == {"stability": 0.1 + 0.2, "stability_error": 0.0}
    assert loaded.clustering.jaccard == saved.jaccard
    assert loaded.clustering.reach.dtype == np.float64
    assert loaded.clustering.reach.tobytes() == saved.reach.tobytes()
    assert loaded.clustering.model.centers.dtype == np.float32
    assert loaded.clustering.model.centers.tobytes() == saved.model.centers.tobytes()
    before = saved.model.place(VECTORS)
    after = loaded.clustering.model.place(VECTORS)
    assert after.labels.tobytes() == before.labels.tobytes()
    assert after.confidence.tobytes() == before.confidence.tobytes()


def in_columns(frame: pl.DataFrame, plan: TextPlan, **given: Any) -> tuple[FittedClustering, np.ndarray]:
    """Segments drawn in points of the columns and of the rows' vectors, and these points."""

    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.array([[text.count(letter) for letter in "abcdefgh"] for text in texts], dtype=np.float32)

    settings = ClusteringSettings.model_validate({"method": "mixture", "k": 2, "n_init": 2} | given)
    space, points = TableSpace.fit(frame, plan.columns, encode, vectors=VECTORS, seed=0)
    result = cluster(points, settings, seed=0, layout=space.layout)
    found = FittedClustering(
        settings=settings,
        model=result.model,
        k=result.k,
        segment_ids=tuple(range(result.k)),
        sizes=tuple(np.bincount(result.labels).tolist()),
        noise=0,
        reach=segment_reach(points, result.labels, result.model),
        table=space,
        texts="revision 7",
    )
    return found, points


@pytest.mark.parametrize("numbers", [0, 1, 3])
@pytest.mark.parametrize("categories", [0, 2])
def test_segments_of_a_table_are_saved_with_how_its_rows_are_read(
    numbers: int, categories: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    group = np.arange(40) % 2
    columns: dict[str, Any] = {f"n{i}": rng.normal(size=40) + 3 * group for i in range(numbers)}
    columns |= {f"c{i}": [f"größe {g}" for g in group] for i in range(categories)}
    columns["note"] = ["a bad cab" if g else "feed" * int(i % 3 + 1) for i, g in enumerate(group)]
    frame = pl.DataFrame(columns)
    settings = {"source": {"path": "-"}, "key": "id", "columns": {"note": {"kind": "text"}}}
    plan = fit_text(frame, DatasetSettings.model_validate(settings))
    saved, points = in_columns(frame, plan)
    FittedState(plan, saved).save(tmp_path / "state")
    loaded = FittedState.load(tmp_path / "state").clustering
    assert loaded is not None
    assert loaded.table is not None
    assert saved.table is not None
    assert loaded.texts == "revision 7"
    assert loaded.table.details() == saved.table.details()
    assert loaded.table.layout == saved.table.layout
    assert loaded.table.needs_texts == loaded.table.needs_vectors is True
    before, after = saved.model.place(points), loaded.model.place(points)
    assert np.bincount(after.labels).tolist() == list(saved.sizes)
    assert after.memberships is not None
    assert before.memberships is not None
    for name in ("labels", "confidence", "memberships"):
        assert getattr(after, name).tobytes() == getattr(before, name).tobytes()


def test_a_table_of_parts_that_no_one_knows_is_damage(plan: TextPlan, tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": np.arange(40.0)})
    saved, _ = in_columns(frame, fit_text(frame, DatasetSettings.model_validate({"source": {"path": "-"}, "key": "i"})))
    FittedState(plan, saved).save(tmp_path / "state")
    file = tmp_path / "state" / "state.json"
    document = json.loads(file.read_text())
    for change in ({"kind": "sound"}, {"width": 3}):
        changed = json.loads(json.dumps(document))
        changed["state"]["clustering"]["table"][0] |= change
        text = json.dumps(changed["state"], sort_keys=True)
        changed["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        file.write_text(json.dumps(changed))
        with pytest.raises(ErasmoError, match=r"that does not load \((KeyError|TypeError)\)"):
            FittedState.load(tmp_path / "state")


def test_arrays_are_kept_whatever_their_layout(plan: TextPlan, tmp_path: Path) -> None:
    centers = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))[:, ::2]
    space = Space(2, np.zeros(4)[::2], scale=np.arange(1, 5, dtype=np.float64)[::2])
    reach = np.arange(6, dtype=np.float64)[::2]
    model = SegmentModel(space, centers, NearestCenter())
    clustering = FittedClustering(ClusteringSettings(), model, 3, (4, 0, 9), (1, 2, 3), 4, reach)
    FittedState(plan, clustering).save(tmp_path / "state")
    loaded = FittedState.load(tmp_path / "state").clustering
    assert loaded is not None
    assert loaded.model.space.scale is not None
    assert loaded.model.centers.tolist() == centers.tolist()
    assert loaded.model.space.scale.tolist() == [1, 3]
    assert loaded.reach.tolist() == [0, 2, 4]
    assert loaded.noise_share == 0.4
    assert (loaded.stability, loaded.jaccard) == ({}, ())  # what nobody has asked for is not known
    assert loaded.rows_by_id == {4: 1, 0: 2, 9: 3, -1: 4}
    assert loaded.ids(np.array([2, -1, 0])).tolist() == [9, -1, 4]
    assert loaded.labels(np.array([9, -1, 4, 77])).tolist() == [2, -1, 0, -1]


def test_before_there_are_segments(plan: TextPlan, tmp_path: Path) -> None:
    FittedState(text=plan, clustering=None).save(tmp_path / "state")
    loaded = FittedState.load(tmp_path / "state")
    assert loaded.text == plan
    assert loaded.clustering is None


def test_a_new_state_takes_the_place_of_the_old(plan: TextPlan, tmp_path: Path) -> None:
    FittedState(plan, fitted(k=3)).save(tmp_path / "state")
    (tmp_path / "state" / "stray").touch()
    FittedState(plan, fitted("none", k=2)).save(tmp_path / "state")
    loaded = FittedState.load(tmp_path / "state").clustering
    assert loaded is not None
    assert (loaded.k, loaded.model.space.scale) == (2, None)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    assert not (tmp_path / "state" / "stray").exists()


def test_a_failed_save_leaves_the_old_state(plan: TextPlan, tmp_path: Path) -> None:
    FittedState(plan, fitted()).save(tmp_path / "state")
    files = {p.name: p.read_bytes() for p in (tmp_path / "state").iterdir()}
    model = SegmentModel(Space(6, np.zeros(6)), VECTORS[:2], FuzzyCenter(object()))  # type: ignore[arg-type]
    broken = FittedClustering(ClusteringSettings(), model, 2, (0, 1), (1, 1), 0, np.zeros(2))
    with pytest.raises(TypeError):
        FittedState(plan, broken).save(tmp_path / "state")
    assert {p.name: p.read_bytes() for p in (tmp_path / "state").iterdir()} == files
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def change_a_digit(path: Path) -> None:
    changed = path.read_text().replace('"decimals": 6', '"decimals": 5')
    assert changed != path.read_text()
    path.write_text(changed)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def not_an_object(path: Path) -> None:
    path.write_text("[1]")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state.json", cut),
        ("state.json", change_a_digit),
        ("state.json", empty),
        ("state.json", not_an_object),
        ("state.json", Path.unlink),
        ("state.safetensors", cut),
        ("state.safetensors", flip_a_bit),
        ("state.safetensors", empty),
        ("state.safetensors", Path.unlink),
    ],
)
def test_damage_is_found(name: str, damage: Callable[[Path], None], plan: TextPlan, tmp_path: Path) -> None:
    FittedState(plan, fitted()).save(tmp_path / "state")
    damage(tmp_path / "state" / name)
    with pytest.raises(
        ErasmoError, match=r"^Got a fitted state in .*state that .*, expected .*: materialize"
    ) as caught:
        FittedState.load(tmp_path / "state")
    assert damage is not Path.unlink or f"lacks {name}" in caught.value.got


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match=r"lacks state\.json, expected state\.json and state\.safetensors"):
        FittedState.load(tmp_path / "nowhere")


@pytest.mark.parametrize("other", [1, 2, 99])
def test_another_format_is_named(other: int, plan: TextPlan, tmp_path: Path) -> None:
    FittedState(plan, None).save(tmp_path / "state")
    file = tmp_path / "state" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": other}))
    with pytest.raises(ErasmoError, match=f"is of format {other}, expected format 4"):
        FittedState.load(tmp_path / "state")
