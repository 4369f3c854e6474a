"""Whatever is wrong in a folder of models is told with the file, what was expected and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.sql_folder import PROJECT, STAGED, refused

A = {"models/a.sql": STAGED}


def yml(text: str) -> dict[str, str]:
    return A | {"models/a.yml": text}


def column_test(text: str) -> dict[str, str]:
    return yml(
        f"version: 2\nmodels:\n  - name: a\n    columns:\n      - name: x\n        data_tests:\n          - {text}\n"
    )


JINJA = {
    "a class": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "a method's globals": ("{{ ref.__globals__ }}", "unsafe"),
    "a global's globals": ("{{ namespace.__init__.__globals__ }}", "unsafe"),
    "cycler": ("{{ cycler.__init__.__globals__ }}", "unsafe"),
    "a global that we have not": ("{{ lipsum() }}", "'lipsum' is undefined"),
    "self": ("{{ self.__init__.__globals__ }}", "unsafe"),
    "an attribute by filter": ("{{ ''|attr('__class__') }}", "unsafe"),
    "a format string": ("{{ '{0.__class__}'.format('') }}", "unsafe"),
    "a template of another file": ("{% include '/etc/passwd' %}", "loader"),
    "a changed variable": ("{% do var('list').append(1) %}", "unsafe"),
    "the environment": ("{{ env_var('HOME') }}", "'env_var' is undefined"),
    "a package": ("{{ dbt_utils.star(ref('a')) }}", "'dbt_utils' is undefined"),
    "an incremental model": ("{% if is_incremental() %}{% endif %}", "'is_incremental' is undefined"),
    "the adapter": ("{% do adapter.drop() %}", "'adapter' is undefined"),
    "the target": ("{{ target.name }}", "'target' is undefined"),
    "a snapshot": ("{% snapshot x %}{% endsnapshot %}", "unknown tag 'snapshot'"),
    "an attribute of a relation": ("{{ ref('b').identifier }}", "has no attribute 'identifier'"),
    "an unclosed tag": ("{{ ref('b')", "end of"),
    "a division": ("{{ 1 / 0 }}", "ZeroDivisionError"),
    "too large a range": ("{% for i in range(10000000) %}{% endfor %}", "OverflowError"),
    "a call with nothing": ("{{ var() }}", "TypeError"),
}


@pytest.mark.parametrize(("text", "says"), JINJA.values(), ids=JINJA)
def test_jinja_beyond_ours_is_refused_with_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    files = {"models/b.sql": "select 1", "models/a.sql": f"select\n\n{text}"}
    error = refused(tmp_path, files, says, "sql/models/a.sql, line 3", project=PROJECT + "vars: {list: [1]}")
    assert "ref, source, var, config, this" in error.expected


NAMES = {
    "an unknown model": ("{{ ref('stg_b') }}", "ref('stg_b'), which is no model", "did you mean 'stg_a'"),
    "an unknown model like none": ("{{ ref('zzz') }}", "expected one of a, stg_a", "write the model"),
    "a table as a model": ("{{ ref('segments') }}", "which is no model", "source('erasmo', 'segments')"),
    "a version of a model": ("{{ ref('a', 'b', 'c') }}", "the name of one model", "write ref('name')"),
    "another project's model": ("{{ ref('x', 'a') }}", "ref('x', 'a')", "write ref('name')"),
    "an unknown source": (
        "{{ source('raw', 'segments') }}",
        "source('raw', 'segments')",
        "source('erasmo', 'segments')",
    ),
    "an unknown table": ("{{ source('erasmo', 'segment') }}", "segment_sizes, segments", "did you mean 'segments'"),
    "a variable without a value": ("{{ var('limit') }}", "var('limit'), which has no value", "did you mean 'limits'"),
}


@pytest.mark.parametrize(("text", "says", "fix"), NAMES.values(), ids=NAMES)
def test_a_name_that_is_not_known_is_told_with_those_that_are(tmp_path: Path, text: str, says: str, fix: str) -> None:
    files = {"models/stg_a.sql": STAGED, "models/a.sql": f"select\n{text}"}
    error = refused(tmp_path, files, says, "sql/models/a.sql, line 2", project=PROJECT + "vars: {limits: 1}")
    assert fix in error.fix


def test_a_ring_is_named(tmp_path: Path) -> None:
    files = {f"models/{a}.sql": f"from {{{{ ref('{b}') }}}}" for a, b in ("ab", "bc", "cb", "dd")}
    refused(tmp_path, files, "b -> c -> b", "sql/models/c.sql, sql/models/b.sql")
    (tmp_path / "sql/models/b.sql").unlink()
    (tmp_path / "sql/models/a.sql").unlink()
    (tmp_path / "sql/models/c.sql").unlink()
    refused(tmp_path, {"models/d.sql": "from {{ ref('d') }}"}, "d -> d")


STATEMENTS = {
    "nothing": ("-- nothing", "no statement"),
    "two": ("select 1; select 2", "SELECT and SELECT"),
    "COPY": ("copy segments to 'x.csv'", "COPY"),
    "DROP behind a SELECT": ("select 1; drop table segments", "SELECT and DROP"),
    "an update": ("update segments set dataset = 'x'", "UPDATE"),
    "a WITH that deletes": ("with x as (delete from segments returning *) select * from x", "DELETE"),
    "a WITH that deletes, without returning": ("with x as (delete from segments) select 1", "DELETE"),
    "a WITH that copies": ("with x as (CoPy (select 1) to 'segments.duckdb') select 1", "COPY"),
    "a WITH that empties": ("with x as (truncate segments) select 1", "DELETE"),
    "a WITH that updates, deep down": (
        "with y as (with x as (update segments set dataset = 1) select 1) select * from y",
        "UPDATE",
    ),
    "a WITH that inserts": ("with x as (insert into segments values ('a') returning *) from x", "INSERT"),
    "a WITH within a subquery": ("from (with x as (delete from segments returning *) from x)", "DELETE"),
    "a pivot by the data": ("pivot segments on dataset using count(*)", "MULTI"),
    "no SQL": ("selec 1", "cannot read"),
    "a bracket that closes ours": ("select 1) as x; drop table segments; select (1", "cannot read"),
    "an open comment": ("select 1 /* ", "cannot read"),
    "an attached file": ("attach 'x.duckdb'", "ATTACH"),
    "a setting": ("set threads = 1", "SET"),
}


@pytest.mark.parametrize(("text", "says"), STATEMENTS.values(), ids=STATEMENTS)
def test_a_model_and_a_test_are_one_select(tmp_path: Path, text: str, says: str) -> None:
    refused(tmp_path / "model", {"models/a.sql": text}, says, "sql/models/a.sql", "one SELECT")
    refused(tmp_path / "test", {"tests/t.sql": text}, says, "sql/tests/t.sql", "one SELECT")


def test_generic_tests_are_one_select_too(tmp_path: Path) -> None:
    for number, text in enumerate(("1=1) as t; drop table a; select (1", "1 = 1; drop table a; --", "(")):
        files = column_test(f"not_null: {{config: {{where: '{text}'}}}}")
        refused(tmp_path / str(number), files, "sql/models/a.yml at a > x > not_null", "one SELECT")
    files = column_test('accepted_values: {arguments: {values: ["it\'s"]}}')
    refused(tmp_path, files, "sql/models/a.yml at a > x > accepted_values", "one SELECT")


TAKEN = (
    "segments",
    "segment_profile",
    "publish_log",
    "leaderboard",
    "mart_tests",
    "file_info",
    "penguins_segmented",
    "own_table",
)


@pytest.mark.parametrize("name", TAKEN)
def test_a_model_named_like_a_published_table_is_refused(tmp_path: Path, name: str) -> None:
    files = {f"models/{name}.sql": STAGED, "models/x.yml": "sources: [{name: erasmo, tables: [{name: own_table}]}]"}
    refused(tmp_path, files, f"the published table '{name}'", f"sql/models/{name}.sql", "rename the file")


@pytest.mark.parametrize("name", ["Big", "1st", "a-b", "a b", "a.b", 'a"b', "größe"])
def test_a_model_with_a_name_that_is_no_identifier_is_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path, {f"models/{name}.sql": STAGED}, f"{name!r}", "rename the file")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    files = {"models/x/a.sql": STAGED, "models/y/a.sql": STAGED}
    refused(tmp_path, files, "two models named 'a'", "sql/models/x/a.sql and sql/models/y/a.sql")
    files = {"tests/x/a.sql": "select 1", "tests/y/a.sql": "select 1"}
    refused(tmp_path / "tests", files, "two tests named 'a'", "sql/tests/x/a.sql and sql/tests/y/a.sql")


CONFIG = {
    "another materialization": ("materialized='incremental'", "'incremental'", "make it a table"),
    "ephemeral": ("materialized='ephemeral'", "'ephemeral'", "'view' or 'table'"),
    "another schema": ("schema='x'", "'schema'", "materialized"),
    "a disabled model": ("enabled=false", "enabled False", "move the file"),
}


@pytest.mark.parametrize(("text", "says", "more"), CONFIG.values(), ids=CONFIG)
def test_a_setting_that_dbt_alone_has_is_refused_wherever_it_stands(
    tmp_path: Path, text: str, says: str, more: str
) -> None:
    refused(tmp_path / "1", {"models/a.sql": f"{{{{ config({text}) }}}} select 1"}, says, more, "sql/models/a.sql")
    setting = text.replace("=", ": ").replace("'", "")
    files = yml(f"models: [{{name: a, config: {{{setting}}}}}]")
    refused(tmp_path / "2", files, says, more, "sql/models/a.yml at models > a")
    project = PROJECT + f"models: {{shop: {{marts: {{+{setting}}}}}}}"
    refused(tmp_path / "3", A, says, more, "sql/dbt_project.yml at models > shop > marts", project=project)


def test_a_setting_of_a_test_that_dbt_alone_has_is_refused(tmp_path: Path) -> None:
    refused(
        tmp_path / "1", {"tests/t.sql": "{{ config(severity='loud') }} select 1"}, "severity 'loud'", "sql/tests/t.sql"
    )
    files = column_test("not_null: {config: {limit: 3}}")
    refused(tmp_path / "2", files, "'limit'", "sql/models/a.yml at a > x > not_null", "severity")
    project = PROJECT + "data_tests: {+store_failures: true}"
    refused(tmp_path / "3", A, "'store_failures'", "sql/dbt_project.yml at data_tests", project=project)


PROPERTIES = {
    "no such model": ("models: [{name: stg_aa}]", "'stg_aa'", "no stg_aa.sql", "did you mean 'stg_a'"),
    "no such model, like none": ("models: [{name: zzz}]", "'zzz'", "no zzz.sql", "write zzz.sql"),
    "no such test": ("data_tests: [{name: t}]", "singular test 't'", "no t.sql", "write t.sql"),
    "an unknown key": ("seeds: []", "unknown key", "at seeds", "data_tests, models, sources, version"),
    "an unknown key of a model": (
        "models: [{name: a, colums: []}]",
        "models > a > colums",
        "columns, config",
        "remove",
    ),
    "an unknown key of a column": (
        "models: [{name: a, columns: [{name: x, type: int}]}]",
        "models > a > columns > x > type",
        "data_type",
        "remove",
    ),
    "the old key of tests": (
        "models: [{name: a, columns: [{name: x, tests: [unique]}]}]",
        "models > a > columns > x > tests",
        "data_tests",
        "call it data_tests",
    ),
    "the old key of a model's tests": (
        "models: [{name: a, tests: []}]",
        "models > a > tests",
        "",
        "call it data_tests",
    ),
    "no name": ("models: [{description: x}]", "without models > number 1 > name", "name there", "write it down"),
    "no text": ("models: [{name: a, description: [1]}]", "models > a > description", "string", "mend"),
    "no list": ("models: {name: a}", "models", "tuple", "mend"),
    "another version": ("version: 3", "3 in sql/models/a.yml at version", "2", "mend"),
    "another source": ("sources: [{name: raw}]", "the source 'raw'", "'erasmo'", "call it erasmo"),
    "another schema": ("sources: [{name: erasmo, schema: x}]", "sources > erasmo > schema", "'main'", "mend"),
    "a table twice": (
        "sources: [{name: erasmo, tables: [{name: segments}]}]",
        "'segments' described twice",
        "",
        "remove",
    ),
    "a model twice": ("models: [{name: a}, {name: a}]", "the model 'a' described twice", "one description", "remove"),
    "a column twice": (
        "models: [{name: a, columns: [{name: x}, {name: X}]}]",
        "the column 'x' twice",
        "models > a",
        "join",
    ),
    "a key twice": ("version: 2\nversion: 2", "line 2", "'version' is given twice", "mend"),
    "no YAML": ("models: [", "line 2", "YAML", "mend"),
    "a list": ("- models", "something else in sql/models/a.yml", "", "mend"),
    "Jinja beyond var": (
        "models: [{name: a, description: \"{{ doc('x') }}\"}]",
        "'doc' is undefined",
        "only var",
        "plain",
    ),
}


@pytest.mark.parametrize(("text", "says", "expected", "fix"), PROPERTIES.values(), ids=PROPERTIES)
def test_a_yml_that_says_something_unknown_is_refused(
    tmp_path: Path, text: str, says: str, expected: str, fix: str
) -> None:
    files = yml(text) | {"models/stg_a.sql": STAGED}
    error = refused(tmp_path, files, says, expected, "sql/models/a.yml")
    assert fix in str(error)


GENERIC = {
    "an unknown test": (
        "dbt_utils.at_least_one",
        "unknown test 'dbt_utils.at_least_one'",
        "not_null, unique",
        "singular",
    ),
    "arguments beside": ("accepted_values: {values: [a]}", "accepted_values > values", "arguments", "under arguments"),
    "a setting beside": ("unique: {severity: warn}", "unique > severity", "config", "put it under config"),
    "no values": ("accepted_values", "accepted_values without values", "arguments", "write it down"),
    "no field": ("relationships: {arguments: {to: ref('a')}}", "without field", "arguments", "write it down"),
    "an argument too many": ("unique: {arguments: {values: [a]}}", "unique with values", "column_name", "remove"),
    "an unknown argument": ("unique: {arguments: {colum: x}}", "unique > arguments > colum", "column_name", "remove"),
    "two in one": ("{unique: {}, not_null: {}}", "neither a name", "not_null", "write"),
    "no keys": ("unique: 3", "something else than keys", "arguments", "write"),
    "a parent that is none": ("relationships: {arguments: {to: ref('b'), field: x}}", "ref('b')", "one of a", "mend"),
    "code as a parent": ("relationships: {arguments: {to: \"''.__class__\", field: x}}", "unsafe", "ref", "plain"),
    "a column's column": ("unique: {arguments: {column_name: y}}", "column_name", "tests of a model", "remove it"),
    "a name with spaces": ("unique: {name: is it so}", "'is it so'", "letters", "rename"),
}


@pytest.mark.parametrize(("text", "says", "expected", "fix"), GENERIC.values(), ids=GENERIC)
def test_a_generic_test_that_cannot_be_one_is_refused(
    tmp_path: Path, text: str, says: str, expected: str, fix: str
) -> None:
    error = refused(tmp_path, column_test(text), says, expected, "sql/models/a.yml")
    assert fix in str(error)


def test_two_tests_of_one_name_are_refused(tmp_path: Path) -> None:
    refused(
        tmp_path / "1", column_test("unique\n          - unique"), "two tests named 'unique_a_x'", "a name of its own"
    )
    files = column_test("unique: {name: t}") | {"tests/t.sql": "select 1"}
    refused(tmp_path / "2", files, "two tests named 't'", "sql/models/a.yml and sql/tests/t.sql")


def test_a_models_test_needs_a_column(tmp_path: Path) -> None:
    refused(
        tmp_path,
        yml("models: [{name: a, data_tests: [unique]}]"),
        "'unique' of 'a' without a column",
        "sql/models/a.yml",
    )


PROJECTS = {
    "no name": ("version: 1", "without name", "name there"),
    "a name that is none": ("name: a b", "'a b'", "pattern"),
    "hooks": (PROJECT + "on-run-start: [drop table x]", "at on-run-start", "model-paths"),
    "the old key of tests": (PROJECT + "tests: {}", "at tests", "call it data_tests"),
    "a folder elsewhere": (PROJECT + "model-paths: [../x]", "the folder '../x'", "within"),
    "a folder by its root": (PROJECT + "test-paths: [/etc]", "the folder '/etc'", "within"),
    "no folders": (PROJECT + "model-paths: models", "'models'", "list"),
    "another format": (PROJECT + "config-version: 1", "at config-version", "2"),
    "no YAML": ("name: [", "line 2", "YAML"),
    "a list": ("- name", "something else", "mend"),
}


@pytest.mark.parametrize(("project", "says", "more"), PROJECTS.values(), ids=PROJECTS)
def test_a_project_file_that_asks_for_more_is_refused(tmp_path: Path, project: str, says: str, more: str) -> None:
    refused(tmp_path, A, says, more, "sql/dbt_project.yml", project=project)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sql/models").mkdir(parents=True)
    (tmp_path / "sql/models/b.sql").write_bytes("select 'ß'".encode("latin-1"))
    refused(tmp_path, A, "sql/models/b.sql, which is not UTF-8", "save it as UTF-8")
