"""The function that searches new vectors, derived from the application's own: its text, with the new column for the old one.

Filters, joins, caps, languages and results stay as they are written. What cannot be derived is refused with the reason.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, pairwise

from psycopg import sql

from tasks.shadows.postgres.mentions import Item, Mention, Reading
from tasks.shadows.postgres.scopes import Relation, read
from tasks.shadows.postgres.spans import end_of_alias, end_of_name, end_of_result, end_of_star, text_of, value_set
from tasks.shadows.postgres.underivable import (
    KINDS,
    Routine,
    Underivable,
    Vectors,
    query_among,
    refuse_numbers,
    refuse_unhanded,
    refuse_unlike,
    refuse_untraced,
    written_among,
)
from tasks.stores.postgres.syntax import Edit, NotParsed, Piece, Token, edited, expressions, statements, tokens


@dataclass(frozen=True)
class Derived:
    """A function's body for other vectors."""

    body: str
    query: int | None
    """The argument that is a vector, by number; None where a distance is taken between rows."""


def derive(
    routine: Routine, name: str, old: Vectors, new: Vectors, relation: Relation, writes: bool = False
) -> Derived:
    """The body of a function called ``name`` that does by ``new`` what ``routine`` does by ``old``: it searches, or ``writes``
    them. Raises Underivable."""
    readings = [(piece, read(piece, old.column, relation)) for piece in parsed(routine)]
    every = [reading for _, reading in readings]
    words = tokens(routine.body)
    refuse_untraced(words, readings, old.column, routine.name)
    if writes:
        if not any(r.assignments for r in every):
            raise Underivable(f"it writes nothing to {old.column} by name")
        if new.beside:
            refuse_unhanded(every)
        refuse_numbers(words, old, new)
    elif not any(m.compared for r in every for m in r.mentions):
        raise Underivable(f"it takes no distance from {old.column}")
    elif any(r.assignments for r in every):
        raise Underivable(f"it writes to {old.column} too")
    refuse_unlike(words, every, routine, old, new)
    edits = chain(
        *(_of_piece(piece, reading, routine, old, new) for piece, reading in readings),
        *(_renamed(piece, reading, routine, name) for piece, reading in readings),
        _of_types(words, old, new, declared=routine.language == "plpgsql"),
    )
    among = written_among if writes else query_among
    return Derived(edited(routine.body, list(edits)), among(routine, every))


def respelled(routine: Routine, names: Mapping[str, str], relation: Relation) -> str:
    """The body of the same function for a table whose columns are called otherwise: old name → new name, of columns that are
    there by their old names. Raises Underivable."""
    edits = list[Edit]()
    for column, name in names.items():
        called = Vectors(name, "vector", None, "vector", "")
        for piece in parsed(routine):
            reading = read(piece, column, relation)
            edits += [_column(piece, mention, called) for mention in reading.mentions]
            edits += _assigned(piece, reading, name)
    return edited(routine.body, edits)


def query_of(routine: Routine, column: str, relation: Relation) -> int | None:
    """The argument of a function that is compared with the column, by number. Raises Underivable."""
    return query_among(routine, [read(piece, column, relation) for piece in parsed(routine)])


def hands_out_rows(routine: Routine, column: str, relation: Relation) -> bool:
    """Whether the function names whole rows of the table, as to_jsonb(d) does, which have what the table has."""
    with suppress(Underivable):
        return any(read(piece, column, relation).whole_rows for piece in parsed(routine))
    return False


def searches(routine: Routine, column: str, relation: Relation) -> bool:
    """Whether the function takes a distance from that column, or writes to it."""
    with suppress(Underivable):
        readings = [read(piece, column, relation) for piece in parsed(routine)]
        return any(r.assignments or any(m.compared for m in r.mentions) for r in readings)
    return False


def rename(routine: Routine, name: str) -> str:
    """The body of the same function called ``name``: PL/pgSQL and SQL know arguments after their function's name. Raises
    Underivable."""
    try:
        readings = [(piece, read(piece, "", lambda schema, table: None)) for piece in parsed(routine)]
    except Underivable:
        words = tokens(routine.body)
        if any(w.name == routine.name and n.text == "." for w, n in pairwise(words)):
            raise
        return routine.body
    edits = chain(*(_renamed(piece, reading, routine, name) for piece, reading in readings))
    return edited(routine.body, list(edits))


def parsed(routine: Routine) -> list[Piece]:
    """The statements and expressions of its body. Raises Underivable."""
    try:
        if routine.language == "sql":
            return statements(routine.body)
        if routine.language == "plpgsql":
            return expressions(routine.definition, routine.body)
    except NotParsed as e:
        raise Underivable(str(e)) from e
    raise Underivable(f"it is written in {routine.language}")


def _of_piece(piece: Piece, reading: Reading, routine: Routine, old: Vectors, new: Vectors) -> Iterator[Edit]:
    joined = list[Item]()
    for mention in reading.mentions:
        if mention.outermost and routine.returns_row:
            continue  # a row of the table has what the column has
        if mention.itself and new.beside:
            joined.append(mention.item)
        yield _column(piece, mention, new)
    yield from _handed(piece, reading, new) if new.handed else _assigned(piece, reading, new.column)
    for location, called in reading.named_after:
        end = end_of_result(piece, piece.place(location))
        yield Edit(end, end, f" AS {_quoted(called)}")
    for item in reading.tables:
        if new.beside and (any(item is other for other in joined) or _starred(reading, item, routine)):
            if any(item is written for written in reading.written):
                raise Underivable(
                    "it writes to rows that it finds by vectors, which lie beside them; layout=column keeps the vectors in the table"
                )
            yield from _join(piece, item, new)
    if new.beside:
        yield from _stars(piece, reading, new)


def _renamed(piece: Piece, reading: Reading, routine: Routine, name: str) -> Iterator[Edit]:
    """Arguments after the name of their function."""
    for location, fields in reading.others:
        if fields[0] == routine.name:
            start = piece.place(location)
            yield Edit(start, end_of_name(piece, start, 1), _quoted(name))


def _assigned(piece: Piece, reading: Reading, name: str) -> Iterator[Edit]:
    """The column where it is written."""
    for assignment in reading.assignments:
        start = piece.place(assignment.location)
        yield Edit(start, end_of_name(piece, start, 1), _quoted(name))


def _handed(piece: Piece, reading: Reading, new: Vectors) -> Iterator[Edit]:
    """The vector where it would be written, handed to what lies beside the table."""
    assert new.handed
    for assignment in reading.assignments:
        free = [name for name in new.keeping if name == reading.column or name not in assignment.together]
        if not free:
            raise Underivable("it sets every column that stays")
        name = piece.place(assignment.location)
        end_of = end_of_name(piece, name, 1)
        yield Edit(name, end_of, _quoted(free[0]))
        before, after = new.handed(_quoted(assignment.item.name), free[0])
        start, end = value_set(piece, end_of)
        yield Edit(start, start, before)
        yield Edit(end, end, after)


def _column(piece: Piece, mention: Mention, new: Vectors) -> Edit:
    start = piece.place(mention.location)
    end = end_of_name(piece, start, len(mention.fields))
    text = text_of(piece)[start:end]
    if mention.itself:
        qualifier = ".".join(map(_quoted, mention.fields[:-1])) or _quoted(mention.item.name)
        lies_beside = new.beside and mention.item.table
        text = f"{_beside(mention.item) if lies_beside else qualifier}.{_quoted(new.column)}"
    following = text_of(piece)[end:].lstrip()
    if mention.compared and new.compared_as != new.type and not following.startswith("::"):
        text = f"({text}::{new.extension}.{new.compared_as}({new.dimensions}))"
    if mention.itself and mention.unnamed:
        text += f" AS {_quoted(mention.fields[-1])}"
    return Edit(start, end, text)


def _join(piece: Piece, item: Item, new: Vectors) -> Iterator[Edit]:
    """The table, joined with what lies beside it."""
    assert item.table
    assert new.beside
    start = piece.place(item.table["location"])
    end = end_of_name(piece, start, 2 if "schemaname" in item.table else 1)
    text = text_of(piece)
    if only := re.search(r"\bONLY\s*(\(?)\s*$", text[:start], re.IGNORECASE):
        start = only.start()
        end = text.index(")", end) + 1 if only[1] else end
    if alias := item.table.get("alias"):
        end = end_of_alias(piece, end, alias["aliasname"])
    if re.match(r"\s*TABLESAMPLE\b", text[end:], re.IGNORECASE):
        raise Underivable("it searches a sample of the table")
    yield Edit(start, start, "(")
    yield Edit(end, end, " " + new.beside(_quoted(item.name), _beside(item)) + ")")


def _starred(reading: Reading, item: Item, routine: Routine) -> bool:
    """Whether a subquery hands on all columns of the table, and its vectors with them."""
    return any(item in star.items and not star.outermost for star in reading.stars)


def _stars(piece: Piece, reading: Reading, new: Vectors) -> Iterator[Edit]:
    """What lies beside a table is none of its own columns; a subquery that hands on all of them hands it on too."""
    for star in reading.stars:
        start = piece.place(star.location)
        end = start + 1 if not star.qualified else end_of_star(piece, start)
        text = ", ".join(f"{_quoted(item.name)}.*" for item in star.items)
        if not star.outermost:
            text += "".join(f", {_beside(i)}.{_quoted(new.column)}" for i in star.items if i.table)
        yield Edit(start, end, text)


def _of_types(words: Sequence[Token], old: Vectors, new: Vectors, declared: bool) -> Iterator[Edit]:
    """vector(384) becomes vector(1536), in casts and declarations; a cast or, before the first BEGIN of what is ``declared``, a
    variable without dimensions becomes one of what is compared."""
    for i, word in enumerate(words):
        declared = declared and word.name != "begin"
        if word.name not in KINDS:
            continue
        texts = [w.text for w in words[i + 1 : i + 4]]
        if len(texts) == 3 and texts[0] == "(" and texts[2] == ")" and texts[1] == str(old.dimensions):
            yield Edit(word.start, words[i + 3].end, f"{new.compared_as}({new.dimensions})")
        elif (
            word.name != new.compared_as
            and texts[:1] != ["("]
            and (_is_cast(words, i) or (declared and texts[:1] in ([":"], [";"], ["="])))
        ):
            yield Edit(word.start, word.end, new.compared_as)


def _is_cast(words: Sequence[Token], i: int) -> bool:
    before = words[i - 3].text if i >= 3 and words[i - 1].text == "." else words[i - 1].text if i else ""
    return before == "::"


def _beside(item: Item) -> str:
    return _quoted(f"{item.name}_beside")


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
