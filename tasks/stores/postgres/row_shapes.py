"""Functions that stop working when a table gets one more column: those whose ``*`` stands where a fixed number of columns is
wanted, or that list the columns where all of them are.

Bodies are read by PostgreSQL's own parser. SQL that is put together at run time is read where it is one constant.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.stores.postgres.syntax import Node, NotParsed, parse, parse_plpgsql, walk

WHOLE_ROW = re.compile(r"\s*(new|old)\s*:?=\s*(row\s*)?\([^()]*,", re.IGNORECASE)
FIELD = re.compile(r'\s*new\s*\.\s*(?:"(?P<quoted>[^"]+)"|(?P<plain>\w+))\s*:?=', re.IGNORECASE)
WRITES = ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt")


@dataclass(frozen=True)
class Routine:
    """A function as the catalogue has it."""

    name: str
    language: str
    definition: str
    body: str
    """Empty where it was parsed when it was made."""
    returns_rows: bool
    """Whether its result is of the table's row type."""
    returns_columns: bool
    """Whether its result has a fixed list of columns, other than the table's."""
    fires: bool
    """Whether it is called by a trigger of the table."""


@dataclass(frozen=True)
class Scope:
    """What has the table's columns, all of them, where a query stands."""

    schema: str
    table: str
    fires: bool
    rows: frozenset[str]
    """Names besides the table's: transition tables, and functions that return its rows."""
    queries: Mapping[str, bool] = field(default_factory=dict)
    """The names of WITH, and whether each has them."""


def breaks(routine: Routine, scope: Scope) -> bool:
    """Whether it stops working when the table gets a column. Raises NotParsed."""
    scope = replace(scope, fires=routine.fires)
    if routine.language == "plpgsql":
        return any(_breaks_plpgsql(parse_plpgsql(routine.definition), routine, scope))
    statements = _queries(routine.body) if routine.body else _atomic(_queries(routine.definition)[0])
    results = [_misfits(statement, routine, scope) for statement in statements[-1:]]
    return any(results) or any(_breaks(statement, scope) for statement in statements)


def assigned(definition: str) -> list[str]:
    """The columns of NEW that a trigger function in PL/pgSQL sets, as far as it can be read."""
    try:
        tree = parse_plpgsql(definition)
    except NotParsed:
        return []
    texts = [node["expr"]["PLpgSQL_expr"]["query"] for kind, node in walk(tree) if kind == "PLpgSQL_stmt_assign"]
    return list(dict.fromkeys(m["quoted"] or m["plain"].lower() for m in map(FIELD.match, texts) if m))


def _breaks_plpgsql(tree: Any, routine: Routine, scope: Scope) -> Iterator[bool]:
    for kind, node in walk(tree):
        if kind == "PLpgSQL_stmt_return_query":
            text = node["query"]["PLpgSQL_expr"]["query"] if "query" in node else None
            for statement in _queries(text) if text else _constant(node["dynquery"]["PLpgSQL_expr"]["query"]):
                yield _misfits(statement, routine, scope)
                yield _breaks(statement, scope)
        elif kind == "PLpgSQL_stmt_fors" and "PLpgSQL_rec" in node["var"]:
            if any(inner == "PLpgSQL_stmt_return_next" for inner, _ in walk(node["body"])):
                yield any(_misfits(q, routine, scope) for q in _queries(node["query"]["PLpgSQL_expr"]["query"]))
        elif kind == "PLpgSQL_stmt_assign" and routine.fires:
            yield bool(WHOLE_ROW.match(node["expr"]["PLpgSQL_expr"]["query"]))
        elif kind in ("PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors"):
            yield from (_breaks(statement, scope) for statement in _constant(node["query"]["PLpgSQL_expr"]["query"]))
        elif kind == "PLpgSQL_expr" and node.get("parseMode", 0) != 1:
            yield from (_breaks(statement, scope) for statement in _expression(node))


def _queries(text: str) -> list[Node]:
    return [raw["stmt"] for raw in parse(text)]


def _expression(node: Node) -> list[Node]:
    text, mode = node["query"], node.get("parseMode", 0)
    if mode >= 3:  # an assignment
        text = text.partition("=")[2]
    try:
        return _queries(f"SELECT {text}" if mode else text)
    except NotParsed:
        return []  # the query of an EXECUTE and the like: read above


def _constant(text: str) -> list[Node]:
    """The statements of an expression that is one constant text."""
    (select,) = _queries(f"SELECT {text}")
    targets = select["SelectStmt"]["targetList"]
    value = targets[0]["ResTarget"]["val"].get("A_Const", {}).get("sval", {}).get("sval") if len(targets) == 1 else None
    if value is None:
        raise NotParsed("it puts SQL together at run time")
    return _queries(value)


def _misfits(statement: Node, routine: Routine, scope: Scope) -> bool:
    """Whether the result of a statement no longer has the columns that the function returns."""
    if routine.returns_columns:
        return _grows(statement, scope)
    if not routine.returns_rows:
        return False
    return not _grows(statement, scope) and len(_targets(statement)) > 1


def _breaks(tree: Any, scope: Scope) -> bool:
    """Whether something within a statement wants another number of columns than its ``*`` then has."""
    if isinstance(tree, list):
        return any(_breaks(item, scope) for item in tree)
    if not isinstance(tree, dict):
        return False
    for kind, node in tree.items():
        inner = scope
        if isinstance(node, dict):
            inner = _with(node, scope)
            if (
                kind == "InsertStmt"
                and not _is_table(node["relation"], inner)
                and _grows(node.get("selectStmt"), inner)
            ):
                return True
            if kind in ("SelectStmt", "larg", "rarg") and node.get("op", "SETOP_NONE") != "SETOP_NONE":
                sides = [_grows({"SelectStmt": node[side]}, inner) for side in ("larg", "rarg")]
                if sides[0] != sides[1]:
                    return True
            if (
                kind == "TypeCast"
                and "RowExpr" in node["arg"]
                and _names(node["typeName"].get("names"))[-1:] == [scope.table]
            ):
                return True
        if _breaks(node, inner):
            return True
    return False


def _grows(statement: Any, scope: Scope) -> bool:
    """Whether a statement's result gets a column when the table does."""
    if not isinstance(statement, dict):
        return False
    ((kind, node),) = statement.items()
    inner = _with(node, scope)
    if node.get("op", "SETOP_NONE") != "SETOP_NONE":
        return any(_grows({"SelectStmt": node[side]}, inner) for side in ("larg", "rarg"))
    sources = dict(_sources(node.get("fromClause", node.get("usingClause", [])), inner))
    if kind in WRITES:
        relation = node["relation"]
        sources[_alias(relation)] = _is_table(relation, inner)
    values = [value for row in node.get("valuesLists", []) for value in row["List"]["items"]]
    return any(_star_grows(value, sources, inner) for value in [*_targets(statement), *values])


def _targets(statement: Node) -> list[Node]:
    ((kind, node),) = statement.items()
    returned = node.get("returningList") or node.get("returningClause", {}).get("exprs", [])
    targets = node.get("targetList", []) if kind == "SelectStmt" else returned
    return [target["ResTarget"].get("val", {}) for target in targets if "ResTarget" in target]


def _star_grows(value: Node, sources: Mapping[str, bool], scope: Scope) -> bool:
    if "A_Indirection" in value and any("A_Star" in part for part in value["A_Indirection"]["indirection"]):
        return _is_row(value["A_Indirection"]["arg"], sources, scope)
    fields = value.get("ColumnRef", {}).get("fields", [])
    if not fields or "A_Star" not in fields[-1]:
        return False
    return any(sources.values()) if len(fields) == 1 else _named(_names(fields)[-1], sources, scope)


def _is_row(value: Node, sources: Mapping[str, bool], scope: Scope) -> bool:
    if "ParamRef" in value:  # what USING hands over
        return scope.fires
    names = _names(value.get("ColumnRef", {}).get("fields"))
    return bool(names) and _named(names[-1], sources, scope)


def _named(name: str, sources: Mapping[str, bool], scope: Scope) -> bool:
    return sources.get(name, scope.fires and name in ("old", "new"))


def _sources(items: Sequence[Node], scope: Scope) -> Iterator[tuple[str, bool]]:
    """What a query reads: each by its name there, and whether it has the table's columns."""
    for item in items:
        if table := item.get("RangeVar"):
            query = scope.queries.get(table["relname"]) if "schemaname" not in table else None
            rows = table["relname"] in scope.rows or _is_table(table, scope)
            yield _alias(table), rows if query is None else query
        elif join := item.get("JoinExpr"):
            yield from _sources([join["larg"], join["rarg"]], scope)
        elif select := item.get("RangeSubselect"):
            yield select.get("alias", {}).get("aliasname", ""), _grows(select["subquery"], scope)
        elif call := item.get("RangeFunction"):
            calls = [_names(node.get("funcname"))[-1:] for kind, node in walk(call["functions"]) if kind == "FuncCall"]
            called = [name for names in calls for name in names]
            yield call.get("alias", {}).get("aliasname", called[0] if called else ""), bool(set(called) & scope.rows)


def _with(node: Node, scope: Scope) -> Scope:
    for item in node.get("withClause", {}).get("ctes", []):
        query = item["CommonTableExpr"]
        grows = _grows(query["ctequery"], scope) and not query.get("aliascolnames")
        scope = replace(scope, queries={**scope.queries, query["ctename"]: grows})
    return scope


def _is_table(relation: Node, scope: Scope) -> bool:
    return (relation["relname"], relation.get("schemaname", scope.schema)) == (scope.table, scope.schema)


def _alias(relation: Node) -> str:
    name: str = relation.get("alias", {}).get("aliasname", relation["relname"])
    return name


def _names(fields: Any) -> list[str]:
    return [part["String"]["sval"] for part in fields or () if "String" in part]


def _atomic(definition: Node) -> list[Node]:
    items = definition["CreateFunctionStmt"].get("sql_body", {}).get("List", {}).get("items", [])
    return [statement for item in items for statement in item["List"]["items"]]
