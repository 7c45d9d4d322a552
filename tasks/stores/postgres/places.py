"""The places of new vectors in PostgreSQL: a table of their own, or a table that people use, in it or beside it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

from tasks.base import stored
from tasks.embedders.naming import shown
from tasks.stores.postgres import live_table, vectors
from tasks.stores.postgres.live_table import LiveTable
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.storable import Nul
from tasks.stores.postgres.table import Table
from tasks.stores.postgres.vectors import Vectors

SCHEMA = "vecferry"
"""Where the ledger and the tables that nobody reads yet live."""


@dataclass(frozen=True, kw_only=True)
class PostgresPlace:
    """What places here have in common. Satisfies Place with the facts of its subclasses."""

    kind: ClassVar[str]
    store: ClassVar[str] = "postgres"
    loads: ClassVar[bool] = True
    at_once: ClassVar[bool] = False
    followed: ClassVar[bool]
    followed_after_contract: ClassVar[bool]

    schema: str
    table: str
    shadow: str
    """Name in the schema vecferry; unused by a sync."""
    layout: Layout

    def shape(self, rows: int) -> None:
        return None

    @property
    def label(self) -> str:
        return self.table

    @property
    def partial(self) -> bool:
        return False

    @property
    def vector_type(self) -> str:
        return self.layout.type

    @property
    def row_bytes(self) -> int:
        return self.layout.row_bytes


@dataclass(frozen=True, kw_only=True)
class TablePlace(PostgresPlace):
    """A table that is filled from a source elsewhere, and is its shadow while nobody reads it."""

    followed: ClassVar[bool] = False
    followed_after_contract: ClassVar[bool] = False
    steps_aside: ClassVar[bool] = False
    """Whether a table of that name makes way at the switch."""

    nul: Nul = "quarantine"
    """What becomes of NUL characters, which no text of PostgreSQL holds."""

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def queue(self) -> None:
        return None

    @property
    def rows(self) -> None:
        return None

    @property
    def final(self) -> Table:
        """The table under the name that people use."""
        return Table(self.schema, self.table, self.layout)

    @cached_property
    def hidden(self) -> Table:
        """The table that nobody reads yet."""
        return Table(SCHEMA, self.shadow, self.layout)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return stored.read(cls, {**data, "layout": stored.read(Layout, data["layout"])})


@dataclass(frozen=True, kw_only=True)
class NewTable(TablePlace):
    """A table that takes its final name, which is free, at the switch."""

    kind: ClassVar[str] = "create"


@dataclass(frozen=True, kw_only=True)
class ReplacedTable(NewTable):
    """The same where a table of ours has the final name, and steps aside at the switch."""

    kind: ClassVar[str] = "replace"
    steps_aside: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class SyncedTable(TablePlace):
    """A table of ours that people use, and that gets what differs."""

    kind: ClassVar[str] = "sync"
    loads: ClassVar[bool] = False
    at_once: ClassVar[bool] = True


@dataclass(frozen=True)
class Renaming:
    """How the columns of old and new vectors are called before a switch and after it."""

    column: str
    """The name that people know: of the old vectors before, and of the new ones after."""
    kept: str
    """The old vectors' after it."""
    working: str
    """The new vectors' before it."""


@dataclass(frozen=True, kw_only=True)
class LivePlace(PostgresPlace):
    """A table that people use, whose rows get other vectors.

    ``shadow`` is the table of what is known of each row: key, content hash, and the vector where it lies beside."""

    followed: ClassVar[bool] = True
    nul: ClassVar[Nul] = "quarantine"
    in_table: ClassVar[bool]
    """Whether the vectors are a column of the table itself, so that whoever writes one writes a row of people's."""
    in_shadow: ClassVar[bool]
    """Whether they lie in the table of what is known of each row."""
    old_stays: ClassVar[bool] = False
    """Whether the old vectors go on being searched, and so kept current, after the contract too."""
    live: LiveTable
    new_column: str
    """The column that the new vectors are searched in."""
    function: str | None
    """The search function that switches, as function_names has it; None where there is none."""
    further: tuple[str, ...] = ()
    """Those that switch with it."""
    function_sql: str | dict[str, str] | None = field(default=None, hash=False)
    """Its body for the new vectors, where the user gives it; those of several by name."""
    write_function: str | None = None
    """The function by which the application writes vectors, and which switches too; None where there is none."""
    renaming: Renaming | None = None
    """None where no column changes its name."""
    allow_dependents: bool = False
    """Whether what names the old column by itself may stay with it."""

    @property
    def partial(self) -> bool:
        return self.live.only is not None

    @property
    def name(self) -> str:
        column = self.renaming.column if self.renaming else self.new_column
        return f"{self.schema}.{self.table}.{column}"

    @property
    def column(self) -> str:
        """The column of the new vectors as it is called now, with its table."""
        return f"{self.schema}.{self.table}.{self.new_column}"

    @property
    def vectors(self) -> Vectors:
        """Where the new vectors lie."""
        return Vectors(self.schema, self.table, self.new_column, tuple(column.name for column in self.live.key))

    @property
    def old_vectors(self) -> Vectors | None:
        """Where the run keeps the old ones current once others are searched; None where the run does that which made them."""
        return None if self.live.beside else self.live.old

    @property
    def shared(self) -> bool:
        """Whether others write new vectors too, which are then held against the model's own."""
        return False

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions that switch."""
        return tuple(name for name in (self.function, *self.further, self.write_function) if name)

    def body_of(self, function: str) -> str | None:
        """What the user gives as the body of a function for the new vectors."""
        if isinstance(self.function_sql, dict):
            return self.function_sql.get(function)
        return self.function_sql if function == self.function else None

    @property
    def queue(self) -> str:
        return f"{self.shadow.encode()[:57].decode(errors='ignore')}_queue"  # a name has 63 bytes at most

    @property
    def rows(self) -> LiveTable:
        return self.live

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        layout, live = stored.read(Layout, data["layout"]), live_table.from_json(data["live"])
        renaming = stored.read(Renaming, data["renaming"]) if data.get("renaming") else None
        return stored.read(cls, {**data, "layout": layout, "live": live, "renaming": renaming})


@dataclass(frozen=True, kw_only=True)
class LiveColumn(LivePlace):
    """A column of the table itself, which the application fills after the contract."""

    kind: ClassVar[str] = "column"
    in_table: ClassVar[bool] = True
    in_shadow: ClassVar[bool] = False
    followed_after_contract: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class RenamedColumn(LiveColumn):
    """The same where the column takes the old one's name at the switch. Whoever writes vectors by that name, with the model
    that he has, writes to it then."""

    kind: ClassVar[str] = "renamed_column"

    @property
    def shared(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class SideTable(LivePlace):
    """A table beside it, which has no other source than its queue, so that the queue is worked off for ever."""

    kind: ClassVar[str] = "side_table"
    in_table: ClassVar[bool] = False
    in_shadow: ClassVar[bool] = True
    followed_after_contract: ClassVar[bool] = True

    @property
    def vectors(self) -> Vectors:
        return Vectors(SCHEMA, self.shadow, "embedding", tuple(self.live.numbered()))

    @property
    def shared(self) -> bool:
        return self.write_function is not None


@dataclass(frozen=True, kw_only=True)
class ModelColumn(LivePlace):
    """A table of the application's that has the vectors of several models: a row for each row of the live table and model, in the
    column of its dimensions. What several models share nobody fills but for his own rows."""

    kind: ClassVar[str] = "model_column"
    in_table: ClassVar[bool] = False
    in_shadow: ClassVar[bool] = False
    old_stays: ClassVar[bool] = True
    followed_after_contract: ClassVar[bool] = True

    own: Vectors
    model: int
    """Number of the model, in the registry."""
    model_name: str
    source: int
    """Number of the model that was searched before."""
    set_id: int
    """The tables, in the registry."""

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table} by {shown(self.model_name)}"

    @property
    def vectors(self) -> Vectors:
        return self.own

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return super().from_json({**data, "own": vectors.from_json(data["own"])})
