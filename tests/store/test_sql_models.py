"""A folder of models is read as dbt reads it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from erasmo_dagster import template
from erasmo_dagster.store import marts, published_file
from erasmo_dagster.store.sql_models import SqlProject, load_sql_project
from erasmo_dagster.store.sql_models.load import PUBLISHED
from tests.store.sql_folder import PROJECT, STAGED, folder, load

REAL = Path(template.__file__).parent / "dbt_like_sql"


def sql(project: SqlProject, name: str) -> str:
    return next(model.sql for model in project.models if model.name == name)


def kinds(project: SqlProject) -> dict[str, str]:
    return {model.name: model.materialized for model in project.models}


def test_no_folder_and_a_folder_without_a_project_file_are_no_project(tmp_path: Path) -> None:
    assert load_sql_project(tmp_path / "absent") is None
    (tmp_path / "models").mkdir()
    assert load_sql_project(tmp_path) is None


def test_a_project_without_models_is_one(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert (loaded.models, loaded.tests) == ((), ())
    assert [source.name for source in loaded.sources] == ["segment_sizes", "segments"]


def test_a_model_has_its_sql_rendered_and_its_yml(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {
            "models/staging/stg_members.sql": STAGED + ";\n",
            "models/staging/stg_members.yml": "models: [{name: stg_members, description: 'One row. ',"
            " columns: [{name: dataset, description: The dataset., data_type: varchar}]}]",
            "models/top.sql": "{% set m = ref('stg_members') %}select '{{ this }}' as me, * from {{ m }}, {{ m }} as x",
        },
    )
    first, second = loaded.models
    assert first.sql == 'select * from "main"."segments"'
    assert (first.description, first.folder, first.sources, first.refs) == ("One row.", "staging", ("segments",), ())
    assert [(c.name, c.description, c.data_type) for c in first.columns] == [("dataset", "The dataset.", "varchar")]
    assert first.path == tmp_path / "sql" / "models" / "staging" / "stg_members.sql"
    assert second.sql == 'select \'"main"."top"\' as me, * from "main"."stg_members", "main"."stg_members" as x'
    assert (second.refs, second.folder) == (("stg_members",), "models")


def test_ref_takes_the_projects_own_name_before_the_models(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"models/a.sql": STAGED, "models/b.sql": "from {{ ref('shop', 'a') }}"})
    assert sql(loaded, "b") == 'from "main"."a"'


def test_models_are_built_after_those_they_refer_to_and_ties_go_by_name(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {
            "models/a.sql": "select * from {{ ref('z') }} join {{ ref('m') }} using (x)",
            "models/z.sql": "select 1 as x",
            "models/m.sql": "select 1 as x",
            "models/c.sql": "select * from {{ ref('a') }}",
            "models/b.sql": "select * from {{ ref('a') }}",
        },
    )
    assert [model.name for model in loaded.models] == ["m", "z", "a", "b", "c"]


def test_model_paths_may_be_several_and_files_that_editors_leave_are_no_models(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {
            "staging/a.sql": STAGED,
            "marts/b.sql": STAGED,
            "staging/.#a.sql": "{{",
            "staging/~b.sql": "{{",
            "other/x.sql": "{{",
        },
        project=PROJECT + "model-paths: [staging, marts, models, absent]\n",
    )
    assert [(model.name, model.folder) for model in loaded.models] == [("a", "staging"), ("b", "marts")]


def test_materialized_is_a_view_unless_the_folders_the_yml_or_the_model_say_otherwise(tmp_path: Path) -> None:
    files = {f"models/marts/{name}.sql": "select 1 as x" for name in ("by_folder", "by_yml", "by_name")}
    files |= {
        "models/plain.sql": "select 1 as x",
        "models/marts/by_itself.sql": "{{ config(materialized='view', tags=['x']) }} select 1 as x",
        "models/marts/by_both.sql": "{{ config({'materialized': 'table'}) }} select 1 as x",
        "models/marts/deep/down.sql": "select 1 as x",
        "models/marts/marts.yml": "models: [{name: by_yml, config: {materialized: view}},"
        " {name: by_both, config: {materialized: view}}, {name: by_itself, config: {materialized: table}}]",
    }
    project = PROJECT + (
        "models:\n  shop:\n    marts:\n      +materialized: table\n      +tags: [x]\n      by_name: {materialized: view}\n"
        "      deep: {+materialized: view}\n  another: {+materialized: table}\n"
    )
    assert kinds(load(tmp_path, files, project=project)) == {
        "plain": "view",
        "by_folder": "table",
        "by_name": "view",
        "by_yml": "view",
        "by_itself": "view",
        "by_both": "table",
        "down": "view",
    }
    assert set(kinds(load(tmp_path, files, project=PROJECT + "models: {+materialized: table}")).values()) == {
        "table",
        "view",
    }


def test_variables_are_flat_or_under_the_project_and_have_defaults(tmp_path: Path) -> None:
    project = PROJECT + "vars:\n  share: 0.1\n  top: 3\n  shop: {top: 5}\n"
    text = "select {{ var('share') }}, {{ var('top') }}, {{ var('none', 'd') }}, {{ var('n', default=2) }}"
    assert sql(load(tmp_path, {"models/a.sql": text}, project=project), "a") == "select 0.1, 5, d, 2"


def test_jinja_has_its_own_if_for_and_set(tmp_path: Path) -> None:
    text = "select {# no #}{% for i in range(3) %}{{ i }} as c{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}"
    assert sql(load(tmp_path, {"models/a.sql": text}), "a") == "select 0 as c0, 1 as c1, 2 as c2"


def test_a_closing_semicolon_is_taken_off_and_others_stay(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {
            "models/a.sql": "select 'é;' as x /* ; */ ; -- done; \n",
            "models/b.sql": "select ';' as x -- ;",
            "models/c.sql": "\ufeffselect 1 as x;;",
        },
    )
    assert [model.sql for model in loaded.models] == [
        "select 'é;' as x /* ; */",
        "select ';' as x -- ;",
        "select 1 as x",
    ]


def test_a_yml_may_use_variables(tmp_path: Path) -> None:
    files = {
        "models/a.sql": STAGED,
        "models/a.yml": "models: [{name: a, description: \"More than {{ var('top') }}.\","
        " columns: [{name: entity_key, data_tests: [{not_null: {config: {where: \"segment_id < {{ var('top') }}\"}}}]}]}]",
    }
    loaded = load(tmp_path, files, project=PROJECT + "vars: {top: 3}")
    assert loaded.models[0].description == "More than 3."
    assert "segment_id < 3" in loaded.tests[0].sql


def test_generic_tests_have_the_names_that_dbt_gives(tmp_path: Path) -> None:
    yml = """
models:
  - name: a
    data_tests:
      - unique: {arguments: {column_name: "dataset || '.' || entity_key"}}
    columns:
      - name: dataset
        data_tests:
          - not_null
          - unique: {name: own_name, description: Once., config: {severity: WARN, tags: x}}
          - accepted_values: {arguments: {values: [a, the b], quote: true}}
          - relationships: {arguments: {to: ref('b'), field: dataset}}
"""
    sources = "sources: [{name: erasmo, tables: [{name: other, columns: [{name: x, data_tests: [not_null]}]}]}]"
    loaded = load(
        tmp_path, {"models/a.sql": STAGED, "models/b.sql": STAGED, "models/a.yml": yml, "models/o.yaml": sources}
    )
    tests = {test.name: test for test in loaded.tests}
    assert list(tests) == [
        "accepted_values_a_dataset__True__a__the_b",
        "not_null_a_dataset",
        "own_name",
        "relationships_a_dataset__dataset__ref_b_",
        "source_not_null_erasmo_other_x",
        "unique_a_dataset_entity_key",
    ]
    assert (tests["own_name"].severity, tests["own_name"].description) == ("warn", "Once.")
    assert (tests["not_null_a_dataset"].severity, tests["not_null_a_dataset"].column) == ("error", "dataset")
    assert tests["relationships_a_dataset__dataset__ref_b_"].depends_on == ("a", "b")
    source = tests["source_not_null_erasmo_other_x"]
    assert (source.model, source.depends_on, source.sources) == (None, (), ("other",))
    assert all(test.description for test in loaded.tests)


def test_singular_tests_are_files_with_a_severity_and_a_description(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {
            "models/a.sql": STAGED,
            "models/b.sql": STAGED,
            "tests/none.sql": "-- None at all.\n-- Ever.\nselect * from {{ ref('b') }}, {{ ref('a') }} where false;",
            "tests/warns.sql": "{{ config(severity='warn') }} select * from {{ source('erasmo', 'segments') }}",
            "tests/by_yml.sql": "select 1",
            "tests/t.yml": "data_tests: [{name: by_yml, description: Said here., config: {severity: warn}}]",
        },
        project=PROJECT + "data_tests: {shop: {+severity: error}}",
    )
    by_yml, none, warns = loaded.tests
    assert (none.model, none.depends_on, none.description) == ("b", ("b", "a"), "None at all. Ever.")
    assert (warns.severity, warns.model, warns.sources) == ("warn", None, ("segments",))
    assert (by_yml.severity, by_yml.description, by_yml.path.name) == ("warn", "Said here.", "by_yml.sql")


def test_an_edited_folder_is_read_anew(tmp_path: Path) -> None:
    assert sql(load(tmp_path, {"models/a.sql": "select 1"}), "a") == "select 1"
    assert sql(load(tmp_path, {"models/a.sql": "select 2"}), "a") == "select 2"


def test_the_names_that_models_may_not_have_are_the_published_ones() -> None:
    assert {*published_file._TABLES, *published_file._VIEWS} | {marts.MART_TESTS, marts.INFO} == PUBLISHED


def test_the_real_folder_loads_in_no_time() -> None:
    seconds = []
    for _ in range(5):
        began = time.process_time()
        loaded = load_sql_project(REAL)
        seconds.append(time.process_time() - began)
    assert loaded is not None
    assert {model.folder for model in loaded.models} == {"staging", "marts"}
    assert all(model.description for model in loaded.models)
    assert min(seconds) < 0.2  # 0.07 s on two slow cores


@pytest.mark.parametrize("name", ["ünder.yml", "models/straße/a.yml"])
def test_names_and_texts_are_unicode(tmp_path: Path, name: str) -> None:
    text = "models: [{name: a, description: Größe}]"
    loaded = load(tmp_path, {"models/a.sql": "select 'ß' as x", f"models/{name}": text})
    assert (loaded.models[0].description, loaded.models[0].sql) == ("Größe", "select 'ß' as x")


def test_the_folder_may_be_a_link(tmp_path: Path) -> None:
    root = folder(tmp_path, {"models/a.sql": STAGED})
    (tmp_path / "link").symlink_to(root)
    loaded, linked = load_sql_project(root), load_sql_project(tmp_path / "link")
    assert loaded is not None
    assert linked is not None
    assert [model.sql for model in loaded.models] == [model.sql for model in linked.models]
