"""SQL expressions over the columns of one row, as users give them: read by PostgreSQL's own parser, and refused where the same row
could have two values."""

from collections.abc import Iterator, Mapping

from tasks.base.errors import UsageError
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.expression import Expression
from tasks.stores.postgres.syntax import Node, NotParsed, parse, unquoted

PARTS = {
    "A_Const",
    "A_Expr",
    "A_Indices",
    "A_Indirection",
    "BoolExpr",
    "CaseExpr",
    "CaseWhen",
    "CoalesceExpr",
    "ColumnRef",
    "FuncCall",
    "Integer",
    "List",
    "MinMaxExpr",
    "NullTest",
    "String",
    "TypeCast",
    "TypeName",
}
"""Nodes that an expression over one row consists of: no query, no parameter, nothing of the session."""


def read(connection: Connection, expression: str, table: str, columns: Mapping[str, str]) -> Expression:
    """The expression over ``columns`` of ``table``, which are names and types. Raises UsageError with what is wrong with it."""
    where = f"{expression!r}"
    if sign := next((sign for sign in "%{}" if sign in expression), None):
        raise UsageError(f"{where} contains a {sign}, which is not supported: write chr({ord(sign)})")
    try:
        (statement,) = parse(f"SELECT {expression}")
        (target,) = statement["stmt"]["SelectStmt"]["targetList"]
    except (NotParsed, ValueError, KeyError) as error:
        why = error if isinstance(error, NotParsed) else "it is several"
        raise UsageError(f"{where} is not an SQL expression: {why}") from None
    selected = statement["stmt"]["SelectStmt"].keys() - {"targetList", "limitOption", "op"}
    if selected or "name" in target["ResTarget"]:
        raise UsageError(f"{where} is more than an SQL expression: give one over columns of {table}")
    places = list[tuple[int, str]]()
    for kind, node in _parts(target["ResTarget"]["val"]):
        if kind not in PARTS or node.get("agg_star") or "over" in node or "agg_order" in node:
            raise UsageError(f"{where}: a {kind} cannot be part of an expression over one row of {table}")
        if kind == "ColumnRef":
            places.append((node["location"], _column(node, where, table, columns)))
        if kind == "FuncCall":
            _refuse_unsteady(connection, node, where)
    if not places:
        raise UsageError(f"{where} names no column of {table}; its columns: {', '.join(columns)}")
    return Expression(_pieces(expression, sorted(places)))


def _parts(node: object) -> Iterator[tuple[str, Node]]:
    """Every node, with the name of its kind, which begins with a capital."""
    if isinstance(node, list):
        for child in node:
            yield from _parts(child)
    elif isinstance(node, dict):
        for name, child in node.items():
            if name[:1].isupper() and isinstance(child, dict):
                yield name, child
            yield from _parts(child)


def _column(node: Node, where: str, table: str, columns: Mapping[str, str]) -> str:
    names = [field["String"]["sval"] for field in node["fields"] if "String" in field]
    if len(names) != 1 or len(node["fields"]) != 1:
        raise UsageError(f"{where}: name columns of {table} by themselves, without a table and without *")
    if names[0] not in columns:
        raise UsageError(f"{where}: {table} has no column {names[0]!r}; its columns: {', '.join(columns)}")
    return names[0]


def _refuse_unsteady(connection: Connection, node: Node, where: str) -> None:
    names = [part["String"]["sval"] for part in node["funcname"]]
    schema = names[0] if len(names) > 1 else None
    rows = connection.execute(
        "SELECT p.provolatile = 'i' AND p.prokind = 'f' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE "
        "p.proname = %s AND CASE WHEN %s::text IS NULL THEN pg_function_is_visible(p.oid) ELSE n.nspname = %s END "
        "AND %s BETWEEN p.pronargs - p.pronargdefaults AND CASE WHEN p.provariadic = 0 THEN p.pronargs ELSE 100 END",
        (names[-1], schema, schema, len(node.get("args", []))),
    ).fetchall()
    if not rows:
        raise UsageError(f"{where}: no function {'.'.join(names)} takes that many arguments")
    if not all(steady for (steady,) in rows):
        raise UsageError(
            f"{where}: the function {'.'.join(names)} is not immutable, so one row could have two values"
            + ("; join texts with || and coalesce" if names[-1] in ("concat", "concat_ws", "format") else "")
        )


def _pieces(expression: str, places: list[tuple[int, str]]) -> tuple[str, ...]:
    """SQL, column, SQL, …"""
    text, at, pieces = expression.encode(), 0, list[str]()
    for location, column in places:
        start = location - len("SELECT ")
        end = start + _length(text[start:].decode(), column)
        pieces += [text[at:start].decode(), column]
        at = end
    return (*pieces, text[at:].decode())


def _length(text: str, column: str) -> int:
    """Bytes of the identifier that the text begins with."""
    if text.startswith('"'):
        end = 1
        while text[end] != '"' or text[end + 1 : end + 2] == '"':
            end += 2 if text[end] == '"' else 1
        return len(text[: end + 1].encode())
    end = next((i for i, c in enumerate(text) if not (c.isalnum() or c in "_$" or ord(c) > 127)), len(text))
    assert unquoted(text[:end]) == column, (text[:end], column)
    return len(text[:end].encode())
