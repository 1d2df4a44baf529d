"""The lint finds every construct of docs/portable-sql.md, and none in the models."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from loreline.portable_sql import lint, lint_project, marker
from loreline.settings import PROJECT_ROOT

OFFENDING = {
    "JSON arrow": ("select payload ->> '$.a.b' as b from t", "JSON path"),
    "JSON arrow to JSON": ("select payload -> 'a' as b from t", "JSON path"),
    "JSON function": ("select json_extract_string(payload, '$.a') as a from t", "JSON path"),
    "other JSON function": ("select json_array_length(payload) as n from t", "JSON path"),
    "comprehension": ("select [x + 1 for x in items] as n from t", "function of each element"),
    "list_transform": (
        "select list_transform(items, lambda x: x + 1) as n from t",
        "function of each element",
    ),
    "list_filter": (
        "select list_filter(items, x -> x > 1) as n from t",
        "function of each element",
    ),
    "list_reduce": (
        "select list_reduce(items, lambda x, y: x + y) as n from t",
        "function of each element",
    ),
    "string_agg": (
        "select string_agg(a, ',' order by b nulls last) as joined from t",
        "aggregate into a text or a list",
    ),
    "list": (
        "select list(a order by b nulls last) as items from t",
        "aggregate into a text or a list",
    ),
    "array_agg": ("select array_agg(a) as items from t", "aggregate into a text or a list"),
    "unnest in the select list": ("select unnest(items) as item from t", "list to rows"),
    "unnest in the from clause": (
        "select item from t, unnest(t.items) as u (item)",
        "list to rows",
    ),
    "regexp_replace with g": (
        "select regexp_replace(a, 'x', '', 'g') as a from t",
        "regexp_replace",
    ),
    "regexp_replace without": ("select regexp_replace(a, 'x', '') as a from t", "regexp_replace"),
    "regexp_extract without a group": (
        "select regexp_extract(a, 'x(y)') as a from t",
        "regular expression without a group",
    ),
    "backslash in a pattern": (
        r"select regexp_extract(a, '\d+', 0) as a from t",
        "backslash in a text",
    ),
    "sha256": ("select sha256(a) as h from t", "hash function"),
    "md5": ("select md5(a) as h from t", "hash function"),
    "slice": ("select a[2:4] as a from t", "slice or element by number"),
    "element by number": ("select items[1] as a from t", "slice or element by number"),
    "last element": ("select items[-1] as a from t", "slice or element by number"),
    "recursive CTE": (
        "with recursive r as (select 1 as n union all select n + 1 from r) select n from r",
        "recursive CTE",
    ),
    "QUALIFY": (
        "select a from t qualify row_number() over (order by a nulls last) = 1",
        "QUALIFY",
    ),
    "DISTINCT ON": ("select distinct on (a) a, b from t", "DISTINCT ON"),
    "date_trunc of a date": (
        "select date_trunc('day', cast(a as date)) as d from t",
        "date_trunc of what may be a date",
    ),
    "date_trunc of a column": (
        "select date_trunc('day', a) as d from t",
        "date_trunc of what may be a date",
    ),
    "epoch": ("select epoch(a) as n from t", "epoch conversion"),
    "epoch_ms": ("select epoch_ms(a) as n from t", "epoch conversion"),
    "to_timestamp": ("select to_timestamp(a) as at from t", "epoch conversion"),
    "date_diff": ("select date_diff('hour', a, b) as n from t", "date difference"),
    "datediff": ("select datediff('hour', a, b) as n from t", "date difference"),
    "struct literal": ("select {'a': 1} as s from t", "struct literal"),
    "struct_pack": ("select struct_pack(a := 1) as s from t", "struct literal"),
    "row": ("select row(1, 2) as s from t", "struct literal"),
    "list literal": ("select ['public'] as l from t", "list literal"),
    "ASOF JOIN": ("select a.x from a asof join b on a.x >= b.x", "ASOF JOIN"),
    "IGNORE NULLS inside": (
        "select last_value(a ignore nulls) over (order by b nulls last) as a from t",
        "IGNORE NULLS inside",
    ),
    "arg_max": ("select arg_max(a, b) as a from t", "arg_max"),
    "max_by": ("select max_by(a, b) as a from t", "arg_max"),
    "arg_min": ("select arg_min(a, b) as a from t", "arg_max"),
    "division": ("select a / b as q from t", "division"),
    "integer division": ("select a // b as q from t", "division"),
    "concat": ("select concat(a, b) as c from t", "concat"),
    "concat_ws": ("select concat_ws(',', a, b) as c from t", "concat"),
    "ORDER BY": ("select a from t order by a", "ORDER BY without NULLS"),
    "ORDER BY descending": ("select a from t order by a desc", "ORDER BY without NULLS"),
    "ORDER BY of a window": (
        "select row_number() over (partition by a order by b) as n from t",
        "ORDER BY without NULLS",
    ),
    "exclude": ("select * exclude (a) from t", "star with changes"),
    "exclude of a table": ("select t.* exclude (a) from t", "star with changes"),
    "replace": ("select * replace (1 as a) from t", "star with changes"),
    "COLUMNS": ("select columns('a.*') from t", "star with changes"),
    "UNION BY NAME": ("select a from t union all by name select a from u", "UNION BY NAME"),
    "PIVOT": ("select a from (pivot t on a using sum(b))", "PIVOT"),
    "view": ("create view v as select a from t", "view or statement"),
    "statement": ("delete from t", "view or statement"),
    "two-part name": ("select a from knowledge.documents", "qualified name by hand"),
    "three-part name": ("select a from lake.knowledge.documents", "qualified name by hand"),
    "::": ("select a::string as a from t", "::"),
    "varchar": ("select cast(a as varchar) as a from t", "varchar without a length"),
    "quoted column": ('select "a" from t', "quoted column name"),
    "strpos": ("select strpos(a, 'b') as n from t", "function not known to be portable"),
    "strftime": ("select strftime(a, '%Y') as y from t", "function not known to be portable"),
    "match operator": ("select a ~ 'b' as m from t", "function not known to be portable"),
    "function of one engine": (
        "select starts_with(a, 'b') as m from t",
        "function not known to be portable",
    ),
    "no SQL": ("select from where", "syntax"),
}

PORTABLE = {
    "aggregate with a filter": "select count(*) filter (where a > 1) as n from t group by all",
    "windows": (
        "select lag(a, 1, 'x') over (partition by b order by c desc nulls last) as a,"
        " sum(d) over (order by c nulls first rows between 1 preceding and current row) as d from t"
    ),
    "IGNORE NULLS outside": (
        "select last_value(a) ignore nulls over (order by b nulls last) as a from t"
    ),
    "texts": "select substr(trim(a), 1, instr(a, ':')) || chr(31) || coalesce(b, '') as a from t",
    "regular expressions": "select regexp_extract(a, '([0-9]+)', 1) as n,"
    " regexp_extract_all(a, '[a-z]', 0) as l from t",
    "date_trunc of a timestamp": "select date_trunc('day', cast(a as timestamp)) as d from t",
    "casts": "select cast(a as string) as a, cast(b as decimal(20, 6)) as b,"
    " cast(c as varchar(10)) as c from t",
    "comparisons": "select a is distinct from b as differs, a in ('x', 'y') as known from t",
    "stars": "select t.*, 1 as n from t",
    "interval": "select a + interval 1 day as a from t",
    "CTEs and set operations": "with a as (select x from t) select x from a union select x from u",
    "subqueries": "select a from t where exists (select 1 from u where u.a = t.a)",
    "case": "select case when a and not b or c then 1 else 2 end as n from t",
    "lateral": "select l.element from t, portable__unnest_with_position(t.items) as l",
    "a column called text": "select a as text, text || '' as longer from t where text <> ''",
}


@pytest.mark.parametrize(("sql", "construct"), OFFENDING.values(), ids=OFFENDING.keys())
def test_finds_an_unsafe_construct(sql: str, construct: str) -> None:
    assert construct in [finding.construct for finding in lint(sql)]


@pytest.mark.parametrize("sql", PORTABLE.values(), ids=PORTABLE.keys())
def test_finds_nothing_in_portable_sql(sql: str) -> None:
    assert lint(sql) == []


def test_says_what_was_found_and_what_to_write_instead() -> None:
    assert str(lint("select a ->> 'b' as b from t")[0]) == (
        "JSON path: a ->> '$.b' – call json_text or json_text_list"
    )


def test_each_finding_comes_once() -> None:
    assert len(lint("select items[1] as a, items[1] as b from t")) == 1


def test_names_given_by_ref_are_known() -> None:
    sql = 'select a from "lake"."knowledge"."documents"'
    assert lint(sql, frozenset({"lake.knowledge.documents"})) == []


def test_a_marker_keeps_the_sql_that_a_macro_was_given() -> None:
    arguments = [
        SimpleNamespace(name="list", type="expression"),
        SimpleNamespace(name="separator", type="literal"),
        SimpleNamespace(name="others", type="list[expression]"),
        SimpleNamespace(name="alias", type="alias"),
    ]
    assert marker("split", arguments) == (
        "{% macro duckdb__split(list, separator, others, alias) -%}"
        "portable__split({{ list }}, {{ others | join(', ') }}) as {{ alias }}"
        "{%- endmacro %}"
    )


def test_the_models_are_portable() -> None:
    assert lint_project() == {}


def test_finds_what_a_model_hides_from_its_first_run_and_in_arguments(tmp_path: Path) -> None:
    for name in ("dbt_project.yml", "profiles.yml"):
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    shutil.copytree(PROJECT_ROOT / "macros", tmp_path / "macros")
    models = tmp_path / "models"
    models.mkdir()
    (models / "hidden.sql").write_text(
        "{{ config(materialized='view') }}\n"
        "select {{ sha256_hex(\"a ->> 'x'\") }} as h from lake.knowledge.documents\n"
        "{% if is_incremental() %} union all select md5(b) as h from {{ this }} {% endif %}"
    )
    (models / "tidy.sql").write_text(
        "{{ config(materialized='table') }}\n"
        "select {{ sha256_hex(\"'a'\") }} as h from {{ ref('hidden') }}"
    )
    found = lint_project(tmp_path)
    assert list(found) == ["models/hidden.sql"]
    assert {finding.construct for finding in found["models/hidden.sql"]} == {
        "materialization",
        "JSON path",
        "hash function",
        "qualified name by hand",
    }
