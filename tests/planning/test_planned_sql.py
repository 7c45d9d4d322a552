"""The SQL that a plan shows is what the server is sent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.index import index
from tasks.planning.registry import make_plan
from tasks.stores.postgres.connection import Connection
from tests.helpers.pipeline import build, finish
from tests.shadows.test_live_sync import begun

NOT_WHOLE = ("--", "COPY", "CREATE OR REPLACE FUNCTION", "CREATE EXTENSION")
"""Notes; rows, which the log does not hold; functions, of which the plan shows the names; what is there already."""


@contextmanager
def logged(connection: Connection) -> Iterator[list[str]]:
    """What the sessions that begin in the body are sent and that changes the schema, in one text, its white space as plans
    have it."""
    name = connection.info.dbname
    size = connection.execute("SELECT (pg_stat_file('log')).size").fetchone()
    assert size
    connection.execute(f"ALTER DATABASE {name} SET log_statement = 'ddl'")
    sent: list[str] = []
    yield sent
    connection.execute(f"ALTER DATABASE {name} RESET log_statement")
    row = connection.execute("SELECT pg_read_file('log', %s, 100000000)", (size[0],)).fetchone()
    assert row
    sent.append(" ".join(row[0].split()))


def shown(connection: Connection, form: Any, run_id: str) -> list[str]:
    lines = make_plan(connection, form.request(), run_id).sql
    return [line.removesuffix("  -- at the cutover") for line in lines if not line.startswith(NOT_WHOLE)]


def test_tables_are_made_by_what_the_plan_shows(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """Table, dimensions, key, indexes and the move to the final schema."""
    source = {"chroma": {"path": chroma_dir(count=30)}}
    planned = shown(connection, parse(ChromaToPgvector, source), "r")
    assert len(planned) == 8
    with logged(connection) as sent:
        finish(build("r", **source))
    assert [line for line in planned if line not in sent[0]] == []


@pytest.mark.parametrize("layout", ["column", "side_table"])
def test_live_tables_get_what_the_plan_shows(connection: Connection, layout: str) -> None:
    """The table of what is known, the column, the queue with its triggers and the index."""
    with logged(connection) as sent:
        run = begun(connection, layout)
        index(run, 0)
    form = parse(
        Text384To1536,
        {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536", "layout": layout},
    )
    planned = shown(connection, form, run.run_id)
    assert len(planned) == 12
    assert [line for line in planned if line not in sent[0]] == []
