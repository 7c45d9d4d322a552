"""What a search function is to the one that is derived from it, and why none can be."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.shadows.postgres.mentions import Reading
from tasks.stores.postgres.syntax import Node, Piece, Token

KINDS = ("vector", "halfvec")
"""pgvector's types that a search compares."""
COARSE = ("binary_quantize", "subvector", "<~>", "<%>")
"""What finds rows by a part of their vectors."""
CASTS = frozenset({*KINDS, "text", "varchar", "bpchar", "unknown", "_float4", "_float8", "_int4", "_numeric"})
"""Types of a query that PostgreSQL takes for a vector, by their names in pg_type."""


class Underivable(Exception):
    """Why a function cannot be derived, as the end of a sentence about it."""


@dataclass(frozen=True)
class Routine:
    """A function, as far as its body goes."""

    name: str
    language: str
    """sql or plpgsql."""
    body: str
    definition: str
    """As CREATE FUNCTION, with ``body`` in dollar quotes."""
    returns_row: bool
    """Whether it returns rows of the table itself."""
    arguments: tuple[str, ...]
    """What callers give, by name; empty where it has none."""
    kinds: tuple[str, ...]
    """Their types."""


@dataclass(frozen=True)
class Vectors:
    """A column of the live table, and how a search compares with it."""

    column: str
    type: str
    """vector or halfvec: that of the column."""
    dimensions: int | None
    compared_as: str
    """That of the index: where it differs from the column's, the column is cast."""
    extension: str
    """The schema of pgvector, quoted."""
    beside: Callable[[str, str], str] | None = None
    """Where the vectors lie beside the table: what is joined, by what the table is called and what this is."""
    handed: Callable[[str, str], tuple[str, str]] | None = None
    """The same of what is written: what comes before a vector and after it so that it is written beside the table, by what the
    table is called and ``keeping``."""
    keeping: tuple[str, ...] = ()
    """Columns of which one is set to what it is where the vector would be set."""


def query_among(routine: Routine, readings: Sequence[Reading]) -> int | None:
    """The argument that is compared with the vectors; where that is a variable, the only vector among the arguments."""
    compared = {n for reading in readings for node in reading.compared_with for n in _arguments(node, routine)}
    vectors = {n for n, kind in enumerate(routine.kinds) if kind in KINDS}
    if len(compared) > 1:
        raise Underivable("it takes distances to several of its arguments")
    if compared:
        (query,) = compared
        if routine.kinds[query] not in CASTS:
            raise Underivable(
                f"its query is of the type {routine.kinds[query]}, which PostgreSQL does not take as a vector"
            )
        return query
    return vectors.pop() if len(vectors) == 1 else None


def written_among(routine: Routine, readings: Sequence[Reading]) -> int:
    """The argument that is written to the column; where that is a variable, the only vector among the arguments."""
    values = [a.value for reading in readings for a in reading.assignments]
    given = {n for value in values for n in _arguments(value, routine) if routine.kinds[n] in CASTS}
    vectors = {n for n, kind in enumerate(routine.kinds) if kind in KINDS}
    chosen = given & vectors or given or vectors
    if len(chosen) != 1:
        raise Underivable("it is not clear which of its arguments is the vector")
    return chosen.pop()


def refuse_numbers(words: Sequence[Token], old: Vectors, new: Vectors) -> None:
    """Raises Underivable where the number of old dimensions stands elsewhere than in a type: new vectors may be refused by it."""
    if old.dimensions == new.dimensions:
        return
    for at, word in enumerate(words):
        in_type = at >= 2 and words[at - 1].text == "(" and words[at - 2].name in KINDS
        if word.kind == "number" and word.text == str(old.dimensions) and not in_type:
            raise Underivable(f"it names the number {word.text}, which is that of the old dimensions")


def refuse_unhanded(readings: Sequence[Reading]) -> None:
    """Raises Underivable for vectors that are written, and could not be handed to what lies beside the table."""
    if not all(a.by_update for reading in readings for a in reading.assignments):
        raise Underivable(
            "it writes vectors otherwise than by UPDATE … SET column = value, and the new ones lie beside the table"
        )


def _arguments(node: Any, routine: Routine) -> Iterator[int]:
    """The arguments that may be the value of an expression: not those that say which row or which case it is of."""
    if isinstance(node, list):
        for child in node:
            yield from _arguments(child, routine)
    elif isinstance(node, dict):
        for kind, child in node.items():
            if kind == "ParamRef":
                yield child["number"] - 1
            elif kind == "ColumnRef":
                fields = [f["String"]["sval"] for f in child["fields"] if "String" in f]
                if fields[-1:] and fields[-1] in routine.arguments and fields[:-1] in ([], [routine.name]):
                    yield routine.arguments.index(fields[-1])
            elif kind in _HANDED_ON:
                yield from _arguments(_HANDED_ON[kind](child), routine)
            else:
                yield from _arguments(child, routine)


def _of_select(select: Node) -> list[Any]:
    halves = [{"SelectStmt": select[half]} for half in ("larg", "rarg") if half in select]
    return [*halves, *(select.get(part) for part in ("targetList", "valuesLists", "fromClause", "withClause"))]


_HANDED_ON: dict[str, Callable[[Node], list[Any]]] = {
    "SelectStmt": _of_select,
    "JoinExpr": lambda join: [join["larg"], join["rarg"]],
    "CaseExpr": lambda case: [*(when["CaseWhen"]["result"] for when in case["args"]), case.get("defresult")],
}
"""Parts of what is more than an expression that its value comes from."""


def refuse_unlike(
    words: Sequence[Token], readings: Sequence[Reading], routine: Routine, old: Vectors, new: Vectors
) -> None:
    """Raises Underivable for what another column in the place of the old one would change the meaning of."""
    for operator, node in (distance for r in readings for distance in r.other_distances):
        given = [n for n in _arguments(node, routine) if routine.kinds[n] in KINDS]
        if operator != "<->" or given:  # which other types have too
            raise Underivable(f"it takes a distance, {operator}, from something other than {old.column} too")
    if any(r.of_rows for r in readings):
        raise Underivable(
            f"it takes {old.column} out of a whole row: let it name the table and the column, d.{old.column}"
        )
    names = {word.name for word in words}
    if named := [part for part in COARSE if part in names or (part.startswith("<") and part in routine.body)]:
        raise Underivable(f"it searches by {named[0]}, whose size is that of the old vectors")
    if "use_variable" in names and any(len(m.fields) == 1 for r in readings for m in r.mentions):
        raise Underivable(f"by #variable_conflict use_variable, {old.column} may be a variable of its own")
    if new.beside:
        of_nulls, grouped, merged = (
            any(getattr(r, what) for r in readings) for what in ("of_nulls", "grouped", "merged")
        )
        for unlike, why in (
            (of_nulls, "it says what becomes of rows without a vector, which a table beside does not have"),
            (grouped, "it groups rows, and what lies beside the table is not grouped with them"),
            (merged, "its * stands for columns that a join has merged"),
        ):
            if unlike:
                raise Underivable(f"{why}; layout=column keeps the vectors in the table")


def refuse_untraced(
    words: Sequence[Token], readings: Sequence[tuple[Piece, Reading]], column: str, routine: str
) -> None:
    """Raises Underivable for a mention of the column of which nobody can say what it means."""
    for _, reading in readings:
        for _, fields in reading.others:
            if fields[-1] == column and fields[0] != routine:  # else it is an argument
                raise Underivable(f"it is not clear what {'.'.join(fields)} is")
    spans = [(piece.start, piece.start + len(piece.text)) for piece, _ in readings]
    for word in words:
        if word.name == column and not any(start <= word.start < end for start, end in spans):
            raise Underivable(f"it names {column} outside of any statement")
