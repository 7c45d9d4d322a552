"""Where a statement writes a column, and what it writes."""

from collections.abc import Iterator

from tasks.shadows.postgres.mentions import Assignment, Item
from tasks.stores.postgres.syntax import Node


def assignments(kind: str, node: Node, item: Item, column: str) -> Iterator[Assignment]:
    """Where a statement of that kind, to which ``item`` is the table that it writes, writes the column by its name."""
    merged = [clause["MergeWhenClause"].get("targetList") for clause in node.get("mergeWhenClauses", [])]
    for at, listed in enumerate((node.get("targetList"), node.get("onConflictClause", {}).get("targetList"), *merged)):
        targets = [t["ResTarget"] for t in listed or [] if "ResTarget" in t]
        together = tuple(target.get("name", "") for target in targets)
        for target in targets:
            if target.get("name") == column:
                value = target.get("val")
                alone = not {"MultiAssignRef", "SetToDefault"} & (value or {}).keys() and "indirection" not in target
                by_update = kind == "UpdateStmt" and not at and alone
                yield Assignment(target.get("location", 0), value, item, by_update, together)
    for at, target in enumerate(node.get("cols", [])):
        if target["ResTarget"].get("name") == column:
            values = _values(node.get("selectStmt", {}).get("SelectStmt", {}), at)
            listed_values = {"List": {"items": values}} if values else None
            yield Assignment(target["ResTarget"].get("location", 0), listed_values, item, False)


def _values(select: Node, at: int) -> list[Node]:
    """What an INSERT puts into the column at that place of its list."""
    rows = [row["List"]["items"] for row in select.get("valuesLists", [])]
    rows += [[t["ResTarget"].get("val", {}) for t in select.get("targetList", [])]]
    return [row[at] for row in rows if at < len(row)]
