"""What the code of this repository sends to PostgreSQL, and which of it stands in no file of sql/."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
import pytest
from psycopg import sql

from sql import TOKEN

ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT}/{folder}/" for folder in ("tasks", "flows", "sql"))
READS = re.compile(
    r"(SELECT|SET|RESET|SHOW|NOTIFY|ANALYZE|VACUUM|COPY|DECLARE|FETCH|CREATE TEMPORARY TABLE|"
    r"EXPLAIN \([A-Z, ]+\) SELECT|INSERT INTO key_probe)\b"
)
"""What changes nothing that lasts. COPY brings rows, and no file could hold them; what it writes is in the plan."""
WRITES = re.compile(r"(?:INSERT INTO|(?<!DO )UPDATE|DELETE FROM|LOCK TABLE)\s+(\S+)")
LEDGER = {
    name
    for file in ROOT.glob("sql/ledger_*.sql")
    for name in re.findall(r"CREATE (?:UNLOGGED )?TABLE IF NOT EXISTS (vecferry\.\w+)", file.read_text())
} | {"vecferry.version"}
"""The tables of the ledger, which are nobody's but ours."""


@dataclass(frozen=True)
class Sent:
    """One statement, or several that were sent as one."""

    where: str
    """File and line of the code that sent it."""
    text: str

    def __str__(self) -> str:
        return f"{self.where} sends {' '.join(self.text.split())}"

    @property
    def changes(self) -> bool:
        """Whether it may change more than the ledger."""
        text = self.text.strip().removeprefix("BEGIN; ")
        if text.startswith("WITH"):
            return any(name not in LEDGER for name in WRITES.findall(text))
        written = WRITES.match(text)
        return not (READS.match(text) or (written and written[1] in LEDGER))

    @property
    def file(self) -> str | None:
        """The file of sql/ that it is, its variables bound."""
        return next((name for name, pattern in _patterns().items() if pattern.fullmatch(self.text.strip())), None)


@contextmanager
def recorded() -> Iterator[list[Sent]]:
    """What code of ours sends in this process while the body runs, by whatever connection."""
    statements: list[Sent] = []

    def noting(send: Any) -> Any:
        def noted(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            if sender := _sender(sys._getframe(1)):
                text = query.as_string(self) if isinstance(query, sql.Composable) else str(query)
                statements.append(Sent(sender, text))
            return send(self, query, *arguments, **options)

        return noted

    with pytest.MonkeyPatch.context() as patch:
        for kind in (psycopg.Cursor, psycopg.ServerCursor):
            for name in ("execute", "executemany", "copy"):
                patch.setattr(kind, name, noting(getattr(kind, name)))
        yield statements


@contextmanager
def only_files_of_sql() -> Iterator[None]:
    """Raises AssertionError where the body changed more than the ledger by a statement that stands in no file of sql/."""
    with recorded() as statements:
        yield
    if lines := unwritten(statements):
        raise AssertionError("\n".join(["no file of sql/ says:", *lines]))


def unwritten(statements: list[Sent]) -> list[str]:
    """Those that change more than the ledger and stand in no file of sql/."""
    return list(dict.fromkeys(str(s) for s in statements if s.changes and s.file is None))


def _sender(frame: FrameType | None) -> str | None:
    """The line that asked for it, past psycopg's own; None where that is a test's."""
    while frame and "/psycopg/" in frame.f_code.co_filename:
        frame = frame.f_back
    file = frame.f_code.co_filename if frame else ""
    return f"{file.removeprefix(f'{ROOT}/')}:{frame.f_lineno}" if frame and file.startswith(OURS) else None


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {path.stem: _pattern(path) for path in sorted(ROOT.glob("sql/*.sql"))}


def _pattern(path: Path) -> re.Pattern[str]:
    lines = path.read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("--")).strip()
    pieces, end = list[str](), 0
    for match in TOKEN.finditer(text):
        if not match["skip"]:
            pieces += [re.escape(text[end : match.start()]), ".+?" if match["identifier"] else ".*?"]
            end = match.end()
    return re.compile("".join([*pieces, re.escape(text[end:])]), re.DOTALL)
