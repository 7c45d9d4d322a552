"""What a table of vectors calls a model: the registry's number, or, where the table came with ids of its own, another of their kind."""

from collections.abc import Sequence
from uuid import uuid4


def next_id(kind: str, name: str, known: Sequence[tuple[int, str]]) -> str | None:
    """The id of a further model in a column of the SQL type ``kind``, as text; None where that is its number. ``known`` are numbers
    and ids of those that there are."""
    if kind == "uuid":
        return str(uuid4())
    if kind not in ("bigint", "integer", "smallint"):
        return name
    if all(id == str(number) for number, id in known):
        return None
    return str(max(int(id) for _, id in known) + 1)
