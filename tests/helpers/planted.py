"""A fault planted at the SQL statements of a verb, one after the other: the server refuses the statement."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from tasks.runs import holding

VALUES = re.compile(r"'[^']*'|\b[0-9a-f]{8}\b|\d+")
FAULT = "division by zero"
"""What the server says of it."""


@dataclass
class Planter:
    """Watches the statements of a run's own connections, each by its text without values."""

    run_id: str
    passed: set[str] = field(default_factory=set)
    """Statements that have had their fault, or were let through."""
    refused: str | None = None
    _left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def planting(self, every: int = 1) -> Iterator[None]:
        """Of the statements in the body that have not passed yet, the ``every``-th is refused, once."""
        self.refused, self._left = None, every
        execute, planter = psycopg.Cursor.execute, self

        def watched(cursor: "psycopg.Cursor[Any]", query: Any, *values: Any, **options: Any) -> Any:
            if planter._refuses(cursor, query):
                return execute(cursor, "SELECT 1 / 0")
            return execute(cursor, query, *values, **options)

        psycopg.Cursor.execute = watched  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            psycopg.Cursor.execute = execute  # type: ignore[method-assign]

    def _refuses(self, cursor: "psycopg.Cursor[Any]", query: Any) -> bool:
        name = cursor.connection.info.parameter_status("application_name")
        if name != holding.application(self.run_id):
            return False
        text = query.as_string(cursor) if isinstance(query, sql.Composable) else str(query)
        key = VALUES.sub("?", " ".join(text.split()))
        with self._lock:
            if key in self.passed or self.refused:
                return False
            self.passed.add(key)
            self._left -= 1
            self.refused = None if self._left else key
            return self.refused is not None
