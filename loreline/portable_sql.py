"""A lint for SQL that means the same on DuckDB and on Spark.

What differs by engine lives in macros of `macros/portable/`; everything else in a model is SQL that
both engines read alike. `docs/portable-sql.md` says what that is. Run it with
`python -m loreline.portable_sql`: it needs no stack and takes about three seconds.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ParseError
from sqlglot.tokens import Token, TokenType

from loreline.errors import LorelineError
from loreline.settings import PROJECT_ROOT

MARKER = "portable__"
MATERIALIZATIONS = ("table", "incremental")

# Functions that give the same on both engines. Whoever needs another one tries it on both, then
# adds it here or writes a macro.
PORTABLE_FUNCTIONS = frozenset(
    """
    abs avg bool_and bool_or ceil chr coalesce count current_timestamp date_trunc dense_rank exp
    first_value floor greatest instr lag last_value lead least length ln lower ltrim max min nullif
    rank regexp_extract regexp_extract_all replace row_number rtrim sqrt substr substring sum trim
    upper
    """.split()  # noqa: SIM905
)

# Functions of sqlglot's tree that are written as operators or keywords, not as a call.
SYNTAX = (exp.And, exp.Or, exp.Xor, exp.Case, exp.If, exp.Cast, exp.Exists)


@dataclass(frozen=True)
class Finding:
    """A construct that does not mean the same on both engines.

    Attributes:
        construct: what it is, as `docs/portable-sql.md` names it.
        text: the SQL that was found, on one line.
        remedy: what to write instead.
    """

    construct: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.construct}: {self.text} – {self.remedy}"


@dataclass(frozen=True)
class MarkedModel:
    """A compiled model in which calls of marker functions stand for the portable macros.

    Attributes:
        path: the model's file, relative to the project.
        materialized: as configured.
        sql: one query in DuckDB's dialect.
        relations: every name that `ref()`, `source()` and `this` give, unquoted, in lower case.
    """

    path: str
    materialized: str
    sql: str
    relations: frozenset[str]


@dataclass(frozen=True)
class Rule:
    """A construct, how to know it in the parse tree, and what to write instead.

    Attributes:
        kinds: node types that are the construct.
        calls: a regular expression for the whole name of a function, in lower case.
        when: any other sign.
    """

    construct: str
    remedy: str
    kinds: tuple[type[exp.Expr], ...] = ()
    calls: str = ""
    when: Callable[[exp.Expr], bool] = lambda node: False

    def matches(self, node: exp.Expr) -> bool:
        """Whether the node is the construct."""
        if isinstance(node, exp.Func) and re.fullmatch(self.calls, _function_name(node)):
            return True
        return isinstance(node, self.kinds) or self.when(node)


def lint(sql: str, relations: frozenset[str] = frozenset()) -> list[Finding]:
    """Find what is unsafe in one query, written in DuckDB's dialect.

    Args:
        sql: a query; calls of functions that start with `portable__` stand for macros, and only
            their arguments are looked at.
        relations: names that `ref()`, `source()` and `this` give, unquoted, in lower case; any
            other qualified name was written by hand.

    Returns:
        Findings, each once; none when the query is portable.
    """
    try:
        tree, opposite = (dialect().parse(sql)[0] for dialect in (_Reading, _OppositeReading))
    except ParseError as error:
        return [Finding("syntax", str(error).splitlines()[0], "DuckDB's grammar is the reference")]
    if not isinstance(tree, exp.Query):
        return [Finding("view or statement", _one_line(tree), "a model is one query")]
    found = [
        *_known_constructs(tree),
        *_left_to_defaults(tree, opposite),
        *_names_by_hand(tree, relations),
        *_seen_in_tokens(_Reading().tokenize(sql)),
    ]
    return list(dict.fromkeys(found))


def lint_project(project: Path = PROJECT_ROOT) -> dict[str, list[Finding]]:
    """Lint every SQL model of the dbt project, as its first run and its later ones compile it.

    Returns:
        The findings of each model that has any, by the path of its file.

    Raises:
        LorelineError: dbt cannot compile the project.
    """
    findings: dict[str, list[Finding]] = {}
    for model in marked_models(project):
        found = lint(model.sql, model.relations)
        if model.materialized not in MATERIALIZATIONS:
            remedy = "the catalog keeps tables only: table or incremental"
            found = [Finding("materialization", model.materialized, remedy), *found]
        findings[model.path] = list(dict.fromkeys([*findings.get(model.path, []), *found]))
    return {path: found for path, found in sorted(findings.items()) if found}


def marked_models(project: Path = PROJECT_ROOT) -> Iterator[MarkedModel]:
    """Compile every SQL model with dbt, the macros that differ by engine replaced by markers.

    Each model comes twice: with `is_incremental()` true, and false. Nothing is connected to.

    Raises:
        LorelineError: dbt cannot parse or compile the project.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest = _dbt(["parse"], project, folder)
        _replace_macros_by_markers(manifest)
        tables = [*manifest.nodes.values(), *manifest.sources.values()]
        names = (getattr(table, "relation_name", None) or "" for table in tables)
        relations = frozenset(name.replace('"', "").lower() for name in names)
        for answer in ("true", "false"):
            manifest.macros[
                "macro.dbt.is_incremental"
            ].macro_sql = (
                f"{{% macro is_incremental() %}}{{{{ return({answer}) }}}}{{% endmacro %}}"
            )
            offline = ["compile", "--no-populate-cache", "--no-introspect"]
            for result in _dbt(offline, project, folder, manifest).results:
                node = result.node
                if node.resource_type == "model" and node.language == "sql":
                    materialized = node.config.materialized
                    path, sql = node.original_file_path, node.compiled_code
                    yield MarkedModel(path, materialized, sql, relations)


def marker(name: str, arguments: Sequence[Any]) -> str:
    """The macro that stands for `duckdb__<name>`: a function call with the SQL it was given.

    Only arguments that are SQL themselves are kept, so that they are looked at too. The types in
    `_macros.yml` say which: `expression`, `list[expression]`, and `alias` for the name of an item
    of the from clause.
    """
    names = [argument.name for argument in arguments]
    kept = {
        "expression": "{{{{ {} }}}}",
        "list[expression]": "{{{{ {} | join(', ') }}}}",
    }
    given = [kept[item.type].format(item.name) for item in arguments if item.type in kept]
    alias = [f" as {{{{ {item.name} }}}}" for item in arguments if item.type == "alias"]
    return (
        f"{{% macro duckdb__{name}({', '.join(names)}) -%}}"
        f"{MARKER}{name}({', '.join(given)}){''.join(alias)}"
        "{%- endmacro %}"
    )


def main() -> int:
    """Print the findings of this project; the exit code is 1 when there are any."""
    findings = lint_project()
    for path, found in findings.items():
        print("\n".join(f"{path}: {finding}" for finding in found))
    return 1 if findings else 0


class _Reading(DuckDB):
    """DuckDB's grammar; function names stay as they were written."""

    PRESERVE_ORIGINAL_NAMES = True
    NULL_ORDERING = "nulls_are_small"
    REGEXP_EXTRACT_DEFAULT_GROUP = 0


class _OppositeReading(_Reading):
    """The same with every default turned round: what comes out differently was not stated."""

    NULL_ORDERING = "nulls_are_large"
    REGEXP_EXTRACT_DEFAULT_GROUP = 1


def _replace_macros_by_markers(manifest: Any) -> None:
    own = manifest.metadata.project_name
    for macro in list(manifest.macros.values()):
        name = macro.name.removeprefix("duckdb__")
        public = manifest.macros.get(f"macro.{own}.{name}")
        if macro.package_name != own or public is macro or public is None:
            continue
        arguments = public.arguments
        if not arguments or not all(argument.type for argument in arguments):
            raise LorelineError(
                f"macro {name} does not say what its arguments are",
                "give each a type in the `_macros.yml` of its folder",
            )
        macro.macro_sql = marker(name, arguments)


def _dbt(command: list[str], project: Path, folder: str, manifest: Any = None) -> Any:
    from dbt.cli.main import dbtRunner

    places = ["--project-dir", str(project), "--profiles-dir", str(project)]
    outputs = ["--target", "local", "--target-path", folder, "--log-path", folder, "--quiet"]
    outcome = dbtRunner(manifest=manifest).invoke([*command, *places, *outputs])
    if outcome.success:
        return outcome.result
    results = getattr(outcome.result, "results", [])
    faults = [result.message for result in results if result.status == "error"]
    raise LorelineError(
        f"dbt could not {command[0]} {project} ({outcome.exception or '; '.join(faults)})",
        "mend what it names",
    )


def _known_constructs(tree: exp.Expr) -> Iterator[Finding]:
    for node in tree.walk():
        rule = next((rule for rule in RULES if rule.matches(node)), None)
        if rule:
            yield Finding(rule.construct, _one_line(node), rule.remedy)


def _left_to_defaults(tree: exp.Expr, opposite: exp.Expr) -> Iterator[Finding]:
    for node, other in zip(tree.walk(), opposite.walk(), strict=True):
        if isinstance(node, exp.Ordered) and _differ("nulls_first", node, other):
            yield Finding("ORDER BY without NULLS", _one_line(node.this), "state NULLS LAST")
        if isinstance(node, exp.RegexpExtract | exp.RegexpExtractAll) and _differ(
            "group", node, other
        ):
            remedy = "one engine takes the whole match, the other the first group: state it"
            yield Finding("regular expression without a group", _one_line(node), remedy)


def _differ(argument: str, node: exp.Expr, other: exp.Expr) -> bool:
    return (node.args.get(argument) or None) != (other.args.get(argument) or None)


def _names_by_hand(tree: exp.Expr, relations: frozenset[str]) -> Iterator[Finding]:
    for table in tree.find_all(exp.Table):
        name = ".".join(part.name for part in table.parts)
        if table.db and name.lower() not in relations:
            remedy = "ref() and source() give the name that each target and engine has"
            yield Finding("qualified name by hand", name, remedy)


def _seen_in_tokens(tokens: list[Token]) -> Iterator[Finding]:
    """What the parser turns into the same tree as its portable spelling."""
    end = Token(TokenType.SEMICOLON, ";")
    for token, second, third in zip(
        tokens, [*tokens[1:], end], [*tokens[2:], end, end], strict=False
    ):
        kind = token.token_type
        if kind is TokenType.DCOLON:
            yield Finding("::", f"::{second.text}", "write cast(… as …)")
        if kind is TokenType.STRING and "\\" in token.text:
            remedy = "one engine reads it as an escape: pass patterns through the macro regex"
            yield Finding("backslash in a text", f"'{token.text}'", remedy)
        if token.text.lower() == "varchar" and second.token_type is not TokenType.L_PAREN:
            yield Finding("varchar without a length", token.text, "write string")
        if (
            f"{token.text} {second.text}".lower() == "ignore nulls"
            and third.token_type is TokenType.R_PAREN
        ):
            yield Finding("IGNORE NULLS inside", "ignore nulls)", "write it after the parenthesis")


def _function_name(node: exp.Func) -> str:
    name = node.name if isinstance(node, exp.Anonymous) else node.meta.get("name")
    return (name or node.sql_name()).lower()


def _is_unknown_function(node: exp.Expr) -> bool:
    if not isinstance(node, exp.Func) or isinstance(node, SYNTAX):
        return False
    name = _function_name(node)
    return not name.startswith(MARKER) and name not in PORTABLE_FUNCTIONS


def _is_uncast_date_trunc(node: exp.Expr) -> bool:
    truncates = isinstance(node, exp.DateTrunc | exp.TimestampTrunc)
    return truncates and not (isinstance(node.this, exp.Cast) and node.this.is_type("timestampntz"))


def _is_changed_star(node: exp.Expr) -> bool:
    changes = ("except_", "replace", "rename")
    return isinstance(node, exp.Star) and any(node.args.get(change) for change in changes)


def _is_quoted_column(node: exp.Expr) -> bool:
    return (
        isinstance(node, exp.Identifier) and node.quoted and not isinstance(node.parent, exp.Table)
    )


def _one_line(node: exp.Expr) -> str:
    text = " ".join(node.sql("duckdb", comments=False).split())
    return text if len(text) <= 80 else text[:79] + "…"


# The first rule that matches a node names it.
RULES: tuple[Rule, ...] = (
    Rule(
        "JSON path",
        "call json_text or json_text_list",
        kinds=(exp.JSONExtract, exp.JSONExtractScalar),
        calls="json_.*",
    ),
    Rule(
        "function of each element",
        "call prefixed_list, or write a macro",
        kinds=(exp.Comprehension, exp.Lambda),
        calls="(list|array)_(transform|apply|filter|reduce)",
    ),
    Rule(
        "aggregate into a text or a list",
        "call ordered_string_agg",
        kinds=(exp.GroupConcat, exp.ArrayAgg),
    ),
    Rule(
        "list to rows",
        "call unnest_with_position",
        kinds=(exp.Unnest, exp.Explode, exp.Posexplode),
    ),
    Rule(
        "regexp_replace",
        "one engine replaces the first match, the other all: use regexp_extract or write a macro",
        kinds=(exp.RegexpReplace,),
    ),
    Rule("hash function", "call sha256_hex", calls="sha.*|md5.*|hash"),
    Rule(
        "slice or element by number",
        "use substr for a text; for a list write a macro, as one engine counts from 0",
        kinds=(exp.Bracket,),
    ),
    Rule(
        "recursive CTE",
        "one engine has none: keep it out of models",
        when=lambda node: bool(node.args.get("recursive")),
    ),
    Rule("QUALIFY", "number the rows in a CTE and filter it", kinds=(exp.Qualify,)),
    Rule(
        "DISTINCT ON",
        "number the rows in a CTE and filter it",
        when=lambda node: isinstance(node, exp.Distinct) and bool(node.args.get("on")),
    ),
    Rule(
        "date_trunc of what may be a date",
        "cast its argument to timestamp",
        when=_is_uncast_date_trunc,
    ),
    Rule(
        "epoch conversion",
        "call epoch_text_to_timestamp or seconds_between, or write a macro",
        calls="epoch.*|to_timestamp|make_timestamp.*|unix_.*",
    ),
    Rule(
        "date difference",
        "one engine counts boundaries, the other elapsed units: call seconds_between",
        calls="date_?diff|date_?sub|age",
    ),
    Rule("struct literal", "write a macro", kinds=(exp.Struct,), calls="row"),
    Rule(
        "list literal",
        "call list_of",
        when=lambda node: isinstance(node, exp.Array) and not node.find(exp.Comprehension),
    ),
    Rule(
        "ASOF JOIN",
        "join, then call arg_max",
        when=lambda node: isinstance(node, exp.Join) and node.method.upper() == "ASOF",
    ),
    Rule("arg_max", "call arg_max or arg_min", kinds=(exp.ArgMax, exp.ArgMin)),
    Rule("division", "cast explicitly, in a macro", kinds=(exp.Div, exp.IntDiv)),
    Rule("concat", "it treats nulls differently: use || with coalesce", calls="concat(_ws)?"),
    Rule("star with changes", "list the columns", kinds=(exp.Columns,), when=_is_changed_star),
    Rule(
        "UNION BY NAME",
        "list the columns",
        when=lambda node: isinstance(node, exp.SetOperation) and bool(node.args.get("by_name")),
    ),
    Rule("PIVOT", "aggregate with filter (where …)", kinds=(exp.Pivot,)),
    Rule(
        "quoted column name",
        'one engine reads "…" as a text: use a plain name',
        when=_is_quoted_column,
    ),
    Rule(
        "function not known to be portable",
        "call a macro of macros/portable/, or add it to PORTABLE_FUNCTIONS once tried on both",
        when=_is_unknown_function,
    ),
)


if __name__ == "__main__":
    sys.exit(main())
