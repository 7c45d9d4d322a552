"""A live table of reports whose new column takes the old one's name at the switch; and a form and a flow over it, for tests alone."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pytest
from prefect import State, flow
from pydantic import Field

from flows.catch_up import catch_up
from flows.forms import registry as forms
from flows.forms.form import form, parse
from flows.forms.text_384_to_1536 import Text384To1536
from flows.migrate import migrate
from flows.naming import RUNNER, run_name
from flows.outcome import Result
from tasks.embedders import registry as embedders
from tasks.embedders.budget import Budget
from tasks.embedders.hashing import HashingEmbedder
from tasks.embedders.interface import Embedded, Item, OnMade, Rates, Space
from tasks.embedders.naming import ModelName
from tasks.planning import registry as planning, renamed_columns
from tasks.planning.in_postgres import InPostgres
from tasks.planning.planned import Planned
from tasks.runs import ledger
from tasks.runs.run import Run
from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import Migration, Rows, tables
from tests.helpers.live import text_of
from tests.helpers.live_table import rounded
from tests.helpers.pipeline import build

__all__ = ["text_of"]
FLOW = "renamed"
OLD, NEW = HashingEmbedder(16), HashingEmbedder(24)
SEARCH = (
    "CREATE FUNCTION match_reports(query_embedding vector(16), match_threshold float, match_count int) "
    "RETURNS TABLE (id bigint, content text, similarity float) LANGUAGE sql STABLE AS $$ "
    "SELECT r.id, r.content, 1 - (r.embedding <=> query_embedding) FROM public.reports r "
    "WHERE 1 - (r.embedding <=> query_embedding) > match_threshold ORDER BY r.embedding <=> query_embedding LIMIT match_count $$"
)
WRITE = (
    "CREATE FUNCTION update_report_embedding(report_id bigint, new_embedding vector(16)) RETURNS void LANGUAGE plpgsql "
    "SECURITY DEFINER SET search_path = public AS $$ BEGIN "
    "UPDATE reports SET embedding = new_embedding, seen = seen + 1 WHERE id = report_id; END $$"
)


class RenamedForm(Text384To1536):
    """The form of the flow."""

    write_function: str | None = Field(None, description="function that writes vectors")
    allow_dependents: bool = Field(False, description="leave dependents with the old column")

    flow: ClassVar[str] = FLOW


@flow(name=FLOW, flow_run_name=run_name, task_runner=RUNNER, validate_parameters=False)
@form(RenamedForm)
def renamed(parameters: RenamedForm) -> State[Result]:
    """Move a live table onto another model, under the name that its vectors have."""
    return migrate(parameters)


@pytest.fixture
def renaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that register it."""
    monkeypatch.setitem(planning.PLANNERS, FLOW, InPostgres(renamed_columns))
    monkeypatch.setitem(forms.FLOWS, FLOW, RenamedForm)
    monkeypatch.setitem(embedders.PROVIDERS, "mirrored", "tests.helpers.renamed_table:open_mirrored")


class Reports:
    """The table, as the guide leaves it: an IVFFlat index, a function that searches and one that writes; and an application that
    writes vectors of its model by that function."""

    def __init__(self, connection: Connection, rows: int = 40, search: str = SEARCH, write: str | None = WRITE) -> None:
        self.connection, self.model = connection, OLD
        connection.execute(
            "CREATE EXTENSION IF NOT EXISTS vector; CREATE TABLE reports (id bigint PRIMARY KEY, content text, "
            "seen int DEFAULT 0, embedding vector(16))"
        )
        connection.execute(search.encode())
        if write:
            connection.execute(write.encode())
        vectors = OLD.embed([text_of(n) for n in range(rows)]).whole
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO reports (id, content, embedding) VALUES (%s, %s, %s)",
                [(n, text_of(n), str(vectors[n].tolist())) for n in range(rows)],
            )
        connection.execute(
            "CREATE INDEX reports_embedding ON reports USING ivfflat (embedding vector_cosine_ops) WITH (lists = 2)"
        )
        self.next = rows

    def vector(self, text: str, model: HashingEmbedder | None = None) -> str:
        return str((model or self.model).embed([text]).whole[0].tolist())

    def say(self, n: int, text: str) -> None:
        """The application changes a report, and then writes the vector of what it says by then."""
        self.connection.execute("UPDATE reports SET content = %s WHERE id = %s", (text, n))
        self.write(n, self.vector(text))

    def write(self, n: int, vector: str) -> None:
        self.connection.execute("SELECT update_report_embedding(%s, %s::vector)", (n, vector))

    def add(self) -> None:
        self.connection.execute("INSERT INTO reports (id, content) VALUES (%s, %s)", (self.next, text_of(self.next)))
        self.write(self.next, self.vector(text_of(self.next)))
        self.next += 1

    def expected(self, model: HashingEmbedder = NEW) -> Rows:
        rows = self.connection.execute("SELECT id::text, content FROM reports WHERE content <> ''").fetchall()
        vectors = model.embed([text for _, text in rows]).whole
        return {name: rounded(vector) for (name, _), vector in zip(rows, vectors, strict=True)}

    def stored(self, column: str = "embedding") -> Rows:
        rows = self.connection.execute(
            f"SELECT id::text, {column}::text FROM reports WHERE {column} IS NOT NULL"  # type: ignore[call-overload]
        ).fetchall()
        return {name: rounded(np.array(text[1:-1].split(","), np.float32)) for name, text in rows}

    def columns(self) -> dict[str, str]:
        """The columns of vectors and their types."""
        return dict(
            self.connection.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'reports'::regclass "
                "AND attnum > 0 AND NOT attisdropped AND format_type(atttypid, NULL) = 'vector' ORDER BY attnum"
            ).fetchall()
        )

    def nearest(self, text: str, model: HashingEmbedder, function: str = "match_reports") -> list[tuple[Any, ...]]:
        """What the search function answers by the vector of a text."""
        return self.connection.execute(
            f"SELECT id, content, round(similarity::numeric, 4) FROM {function}(%s::vector, -2, 5)",  # type: ignore[call-overload]
            (self.vector(text, model),),
        ).fetchall()

    def function(self, name: str) -> tuple[Any, ...] | None:
        """A function as the catalogue has it, with owner and rights."""
        return self.connection.execute(
            "SELECT pg_get_functiondef(oid), pg_get_userbyid(proowner), proacl::text FROM pg_proc WHERE proname = %s",
            (name,),
        ).fetchone()


def parameters(new: HashingEmbedder = NEW, old: HashingEmbedder = OLD, **more: Any) -> dict[str, Any]:
    """Of the flow; ``target`` are those of its table."""
    target = {"table": "reports", "text": "content", "new_column": f"embedding_{new.space.dimensions}"}
    models = {"embedder": f"hashing/{new.space.dimensions}", "old_embedder": f"hashing/{old.space.dimensions}"}
    return {"targets": [target | more.pop("target", {})], **models, **more}


def plan(connection: Connection, **more: Any) -> Planned:
    return planning.make_plan(connection, parse(RenamedForm, parameters(**more)).request(), "planned")


def verified(connection: Connection, run_id: str = "r", **more: Any) -> Run:
    """A run that is ready for its cutover, without Prefect."""
    run = build(run_id, RenamedForm, **{"batch_rows": 20, **parameters(**more)})
    return ready(connection, run)


def ready(connection: Connection, run: Run) -> Run:
    ledger.set_state(connection, run.run_id, "verified")
    return run


def migration_of(reports: Reports, new: HashingEmbedder = NEW, old: HashingEmbedder = OLD, **more: Any) -> Migration:
    """The flow over the table, and the application's changes in its life."""
    given, step = parameters(new, old, **more), iter(range(1, 50))

    def change() -> None:
        n = next(step)
        if f"vector({reports.model.space.dimensions})" not in reports.columns().values():
            reports.model = old  # an application has moved on by the time that its vectors are dropped
        reports.add()
        reports.say(n, f"changed {n}")
        reports.connection.execute("UPDATE reports SET seen = seen + 1 WHERE id = %s", (10 + n,))
        reports.connection.execute("DELETE FROM reports WHERE id = %s", (20 + n,))
        reports.connection.execute("UPDATE reports SET content = NULL WHERE id = %s", (30 + n,))

    def served() -> Rows | None:
        searched = reports.columns().get("embedding") == f"vector({new.space.dimensions})"
        return reports.stored() if searched else None

    return Migration(
        run=lambda run_id: renamed(**{"batch_rows": 20, **given}, run_id=run_id),
        plan=lambda: planning.make_plan(reports.connection, parse(RenamedForm, given).request(), "life"),
        expected=lambda: reports.expected(new),
        served=served,
        change=change,
        writes=lambda: tables(reports.connection),
        catch_up=lambda run_id: catch_up(run_id=run_id),
    )


class Mirrored(HashingEmbedder):
    """Another model of the same dimensions: ``mirrored/DIMENSIONS``."""

    @cached_property
    def space(self) -> Space:
        return Space("mirrored", str(self.dimensions), self.dimensions)

    def embed(self, items: Sequence[Item], on_made: OnMade | None = None) -> Embedded:
        vectors = np.ascontiguousarray(super().embed(items).whole[:, ::-1])
        if on_made and len(items):
            on_made(range(len(items)), vectors)
        return Embedded(vectors)


def open_mirrored(name: ModelName, budget: Budget | None = None, rates: Rates | None = None) -> Mirrored:
    return Mirrored(int(name.model))
