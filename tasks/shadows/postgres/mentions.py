"""What a statement says of one column of one table: each mention of it, and each star that stands for it."""

from dataclasses import dataclass, field

from tasks.stores.postgres.syntax import Node

Columns = dict[str, bool | None]
"""The columns of something, by name: True is the one that is looked for, None what a subquery gives of it, under whatever name."""


@dataclass(frozen=True)
class Table:
    """A table of the database, as far as names go."""

    columns: tuple[str, ...]
    searched: bool
    """Whether it is the one whose column is looked for."""


@dataclass(frozen=True)
class Item:
    """What a FROM names. Its ``columns`` are None where they are not known."""

    name: str
    columns: Columns | None
    table: Node | None = None
    """The RangeVar, where it is the table that is looked for."""
    schema: str | None = None


@dataclass(frozen=True)
class Mention:
    """The column is named here."""

    location: int
    fields: tuple[str, ...]
    item: Item
    compared: bool
    """Whether a distance is taken from it."""
    unnamed: bool
    """Whether it is a column of a result and gives that its name."""
    outermost: bool
    """Whether that is the statement's own result."""
    itself: bool
    """Whether it is named by its own name, and not by what a subquery calls it."""


@dataclass(frozen=True)
class Assignment:
    """The column is written here."""

    location: int
    """Of its name."""
    value: Node | None
    """What it becomes; None where that is not an expression of its own."""
    item: Item
    """The table that it is a column of."""
    by_update: bool
    """Whether an UPDATE sets it, by ``column = value``."""
    together: tuple[str, ...] = ()
    """The columns that are set with it."""


@dataclass(frozen=True)
class Star:
    """All columns, the one that is looked for among them."""

    location: int
    items: tuple[Item, ...]
    """What it stands for."""
    qualified: bool
    outermost: bool


@dataclass
class Reading:
    """What a statement says of the column."""

    column: str
    mentions: list[Mention] = field(default_factory=list)
    stars: list[Star] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    tables: list[Item] = field(default_factory=list)
    """Each FROM of its table."""
    others: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """Names with a qualifier that no FROM has: arguments after the function's name, fields of a record."""
    compared_with: list[Node] = field(default_factory=list)
    """What distances are taken to."""
    other_distances: list[tuple[str, Node]] = field(default_factory=list)
    """Distances, with their operators, in which the column is not named."""
    whole_rows: int = 0
    """How often a whole row of its table is named: to_jsonb(d)."""
    named_after: list[tuple[int, str]] = field(default_factory=list)
    """Columns of a result that get the column's name by way of a cast or the like: where each begins, and the name."""
    written: list[Item] = field(default_factory=list)
    """The tables that it writes to."""
    of_rows: bool = False
    """Whether the column is taken out of a whole row: (d).embedding."""
    of_nulls: bool = False
    """Whether it says what becomes of rows without a vector."""
    grouped: bool = False
    """Whether the rows of its table are grouped."""
    merged: bool = False
    """Whether a star stands for columns that a join has merged."""
