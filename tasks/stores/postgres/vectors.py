"""Where the vectors of a table's rows lie: in the table, or in another relation under its key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from tasks.base import stored


@dataclass(frozen=True)
class Vectors:
    """Where the vectors of a table's rows lie."""

    schema: str
    table: str
    column: str
    keys: tuple[str, ...]
    """Its columns that have the key of the row, in the key's order."""
    of: tuple[str, str] | None = None
    """A column that tells whose vector a row has, and SQL of its value; None where all rows are meant."""

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    def same(self, alias: str, keys: Sequence[str]) -> str:
        """SQL: its row ``alias`` has this key, and is one that is meant."""
        pairs = zip(self.keys, keys, strict=True)
        return " AND ".join(
            [*(_equal(alias, own, key) for own, key in pairs), *([self.meant(alias)] if self.of else [])]
        )

    def meant(self, alias: str) -> str:
        """SQL: its row ``alias`` is one that is meant."""
        return _equal(alias, *self.of) if self.of else "true"


def _equal(alias: str, column: str, value: str) -> str:
    return f"{alias}.{sql.Identifier(column).as_string()} = {value}"


def from_json(data: dict[str, Any]) -> Vectors:
    """The place that ``dataclasses.asdict`` wrote."""
    return stored.read(Vectors, {**data, "of": data["of"] and tuple(data["of"])})
