"""Where a statement writes a column, and what it writes."""

from collections.abc import Iterator

from tasks.shadows.postgres.mentions import Assignment
from tasks.stores.postgres.syntax import Node


def assignments(node: Node, column: str) -> Iterator[Assignment]:
    """Where an INSERT or an UPDATE writes the column, by its name."""
    merged = [clause["MergeWhenClause"].get("targetList") for clause in node.get("mergeWhenClauses", [])]
    for listed in (node.get("targetList"), node.get("onConflictClause", {}).get("targetList"), *merged):
        for target in (t["ResTarget"] for t in listed or [] if "ResTarget" in t):
            if target.get("name") == column:
                yield Assignment(target.get("location", 0), target.get("val"))
    for at, target in enumerate(node.get("cols", [])):
        if target["ResTarget"].get("name") == column:
            values = _values(node.get("selectStmt", {}).get("SelectStmt", {}), at)
            yield Assignment(target["ResTarget"].get("location", 0), {"List": {"items": values}} if values else None)


def _values(select: Node, at: int) -> list[Node]:
    """What an INSERT puts into the column at that place of its list."""
    rows = [row["List"]["items"] for row in select.get("valuesLists", [])]
    rows += [[t["ResTarget"].get("val", {}) for t in select.get("targetList", [])]]
    return [row[at] for row in rows if at < len(row)]
