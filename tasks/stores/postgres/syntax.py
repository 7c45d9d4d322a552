"""SQL and PL/pgSQL as PostgreSQL's own parser reads them, and edits of the text by the places that it gives."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pgparse

Node = dict[str, Any]
"""A node of the parse tree, by the names of PostgreSQL's parsenodes.h."""

_TOKENS = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<string>[eE]?'(?:[^']|'')*'|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)"""
    r"""|(?P<name>"(?:[^"]|"")+"|[^\W\d][\w$]*)|(?P<number>\d[\w.]*)|(?P<other>::|\S)""",
    re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    """A word of SQL and where it stands, in characters."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def name(self) -> str:
        """What an identifier names: without its quotes, and folded where it has none."""
        return unquoted(self.text) if self.kind == "name" else ""


@dataclass(frozen=True)
class Edit:
    """The characters from ``start`` to ``end`` become ``text``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Piece:
    """A statement or an expression within a function's body: its tree, and where its text begins in the body. What stands
    in the tree is found ``shift`` characters later than it says."""

    tree: Node
    text: str
    start: int
    shift: int = 0

    def place(self, location: int) -> int:
        """Where in the body something is that the tree says is at that byte of the text."""
        return self.start - self.shift + len((" " * self.shift + self.text).encode()[:location].decode())


class NotParsed(Exception):
    """PostgreSQL's parser does not take the text; its words."""


def unquoted(identifier: str) -> str:
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier.lower()


def tokens(text: str) -> list[Token]:
    """The words of a text, without comments and space."""
    return [
        Token(str(m.lastgroup if m.lastgroup != "tag" else "string"), m[0], m.start(), m.end())
        for m in _TOKENS.finditer(text)
        if m["comment"] is None
    ]


def edited(text: str, edits: Sequence[Edit]) -> str:
    """The text with all edits, of which no two overlap."""
    for edit in sorted(set(edits), key=lambda e: (e.start, e.end), reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def statements(body: str) -> list[Piece]:
    """The statements of a function in SQL. Raises NotParsed."""
    return [Piece(raw["stmt"], body, 0) for raw in parse(body)]


def expressions(definition: str, body: str) -> list[Piece]:
    """The statements and expressions in a function of PL/pgSQL whose CREATE FUNCTION is ``definition``, wherever they stand in
    its ``body``. Raises NotParsed, also where SQL is built at run time: nobody can say what that reads."""
    pieces = list[Piece]()
    for kind, node in walk(parse_plpgsql(definition)):
        if kind in ("PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors") or "dynquery" in node:
            raise NotParsed("it builds SQL at run time, with EXECUTE")
        if kind == "PLpgSQL_expr":
            pieces += _pieces(node, body)
    return pieces


def _pieces(node: Node, body: str) -> Iterator[Piece]:
    query, mode = node["query"], node.get("parseMode", 0)
    if mode == 1:  # the name of a type
        return
    # The parser leaves an INTO out, with as many spaces in its place.
    pattern = re.sub(r"(?:\\ ){5,}", lambda m: f".{{{len(m[0]) // 2}}}", re.escape(query))
    places = [m.start() for m in re.finditer(pattern, body, re.DOTALL)]
    if query.startswith("SELECT"):  # the parser has it for a PERFORM, which is longer by one
        performed = rf"(?i:\bPERFORM){pattern.removeprefix('SELECT')}"
        places += [m.start() + 1 for m in re.finditer(performed, body, re.DOTALL)]
    text, shift = query, 0
    if mode == 2:
        shift = len("SELECT ")
    elif mode >= 3:  # an assignment
        head = re.match(r".*?:?=", query, re.DOTALL)
        assert head
        text, shift = query[head.end() :], len("SELECT ")
        places = [place + head.end() for place in places]
    for raw in parse(("SELECT " if shift else "") + text):
        for place in places:
            yield Piece(raw["stmt"], text, place, shift)


def parse(text: str) -> list[Node]:
    """The statements of a text of SQL. Raises NotParsed."""
    try:
        parsed: list[Node] = pgparse.parse(text)
        return parsed
    except pgparse.PGQueryError as e:
        raise NotParsed(e.message) from e


def parse_plpgsql(definition: str) -> Any:
    """The tree of a function in PL/pgSQL, given its CREATE FUNCTION. Raises NotParsed."""
    try:
        return pgparse.parse_pgsql(definition)
    except pgparse.PGQueryError as e:
        raise NotParsed(e.message) from e


def walk(node: Any) -> Iterator[tuple[str, Node]]:
    """Every node below, with the name of its kind, or of the field that it stands in."""
    if isinstance(node, list):
        for child in node:
            yield from walk(child)
    elif isinstance(node, dict):
        for kind, child in node.items():
            if isinstance(child, dict):
                yield kind, child
            yield from walk(child)
