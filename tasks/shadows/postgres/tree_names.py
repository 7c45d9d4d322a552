"""Names in PostgreSQL's parse trees."""

from collections.abc import Iterator
from typing import Any

from tasks.stores.postgres.syntax import Node

UNNAMED = "?column?"
"""What PostgreSQL calls what has no name."""


def merges(tree: Node) -> bool:
    """Whether it is a join with USING, or a natural one."""
    join: Node = tree.get("JoinExpr", {})
    return bool(join) and (
        "usingClause" in join or bool(join.get("isNatural")) or merges(join["larg"]) or merges(join["rarg"])
    )


def fields_of(tree: Node) -> tuple[tuple[str, ...], int]:
    """The parts of a column's name and where it stands; none where the tree is something else."""
    node = tree.get("ColumnRef")
    if node is None:
        return (), -1
    return tuple(f["String"]["sval"] if "String" in f else "*" for f in node["fields"]), node.get("location", 0)


def output(tree: Node) -> str | None:
    fields, _ = fields_of(tree)
    return fields[0] if len(fields) == 1 else None


def implied(value: Node) -> str:
    """What PostgreSQL calls a column of a result that has no name, as far as it matters here."""
    if call := value.get("FuncCall"):
        return strings(call["funcname"])[-1]
    if fields := fields_of(value)[0]:
        return fields[-1]
    if cast := value.get("TypeCast"):
        name = implied(cast["arg"])
        return strings(cast["typeName"]["names"])[-1] if name == UNNAMED else name
    if part := value.get("A_Indirection"):
        return [implied(part["arg"]), *strings(part.get("indirection"))][-1]
    if collated := value.get("CollateClause"):
        return implied(collated["arg"])
    if link := value.get("SubLink"):
        targets = link["subselect"].get("SelectStmt", {}).get("targetList", [])
        first = targets[0]["ResTarget"] if targets else {}
        return str(first.get("name") or implied(first.get("val", {})))
    return UNNAMED


def strings(nodes: Any) -> list[str]:
    return [n["String"]["sval"] for n in nodes or [] if "String" in n]


def listed(node: Any) -> Iterator[Any]:
    if isinstance(node, list):
        yield from node
    elif node:
        yield node
