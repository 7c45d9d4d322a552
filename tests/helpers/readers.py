"""People who search a live table all the while through its own function, each with rights of his own, and count wrong answers."""

import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import psycopg
from psycopg import sql

from tests.helpers.crowd import Crowd
from tests.helpers.live import NEW, OLD, text_of

USER = "user 1"
ROLE = "app_reader"
RESULT = "RETURNS TABLE (id bigint, content text, similarity float)"
SELECT = (
    "SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding) FROM docs d WHERE {where} "
    "ORDER BY d.embedding <=> query_embedding"
)
OF_OWNER = "d.owner = current_setting('app.reader', true)"
FUNCTIONS = {
    "filtered, by its owner": (
        f"CREATE FUNCTION match_docs(query_embedding vector(384), match_threshold float, match_count int) {RESULT} "
        f"LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$ {SELECT.format(where=OF_OWNER)} LIMIT match_count $$",
        "SELECT * FROM match_docs({vector}, -1, 8)",
    ),
    "a jsonb filter": (
        f"CREATE FUNCTION match_docs(query_embedding vector(384), match_count int DEFAULT 5, filter jsonb DEFAULT '{{}}') {RESULT} "
        "LANGUAGE plpgsql STABLE AS $$ #variable_conflict use_column\nBEGIN RETURN QUERY "
        f"{SELECT.format(where='d.metadata @> filter')} LIMIT match_count; END $$",
        'SELECT * FROM match_docs({vector}, 8, \'{{"owner": "user 1"}}\')',
    ),
    "a LIMIT of its callers": (
        f"CREATE FUNCTION match_docs(query_embedding vector(384), filter jsonb DEFAULT '{{}}') {RESULT} "
        f"LANGUAGE sql STABLE AS $$ {SELECT.format(where='d.metadata @> filter')} $$",
        'SELECT * FROM match_docs({vector}, \'{{"owner": "user 1"}}\') LIMIT 8',
    ),
}
"""By name, what makes a function and what calls it. Of each only the rows of one user are to be had."""


def searched_by(connection: "psycopg.Connection[Any]", function: str) -> None:
    """Gives the table of ``make_table`` the function, in place of its own, and somebody who may call it."""
    create, _ = FUNCTIONS[function]
    connection.execute(
        "DROP FUNCTION match_docs; ALTER TABLE docs ADD owner text GENERATED ALWAYS AS ('user ' || (id % 3)::text) STORED, "
        "ADD metadata jsonb GENERATED ALWAYS AS (('{\"owner\": \"user ' || (id % 3)::text || '\"}')::jsonb) STORED"
    )
    connection.execute(create)  # type: ignore[call-overload]
    connection.execute(
        f"DO $$ BEGIN CREATE ROLE {ROLE}; EXCEPTION WHEN duplicate_object THEN NULL; END $$; "
        "REVOKE ALL ON FUNCTION match_docs FROM PUBLIC"
    )
    connection.execute(f"GRANT EXECUTE ON FUNCTION match_docs TO {ROLE}")
    if "SECURITY DEFINER" not in create:
        connection.execute(f"GRANT SELECT ON docs TO {ROLE}")


class Questions(Protocol):
    """What is asked of a table's search function, and what is wrong with an answer."""

    def in_use(self, connection: "psycopg.Connection[Any]") -> bool:
        """Whether the new vectors are those that people use now."""
        ...

    @property
    def settings(self) -> str:
        """SQL that who asks begins with."""
        ...

    def call(self, kind: str) -> str:
        """The question by an ``old`` or a ``new`` vector."""
        ...

    def wrong(self, kind: str, rows: Sequence[Any]) -> list[str]:
        """A line for each fault."""
        ...


@dataclass(frozen=True)
class TextQuestions:
    """Those of one user, to whichever of ``FUNCTIONS``."""

    function: str
    table: str = "docs"
    dimensions: int = 1536
    settings: str = f"SET app.reader = '{USER}'; SET hnsw.iterative_scan = relaxed_order; SET ROLE {ROLE}"
    """Without iterative scans an HNSW index looks at 40 entries, of which a filter may leave none where most are those of dead
    rows: writers alone bring that about wherever autovacuum falls behind."""

    def in_use(self, connection: "psycopg.Connection[Any]") -> bool:
        return active_dimensions(connection, self.table) == self.dimensions

    @cached_property
    def _vectors(self) -> dict[str, str]:
        return {kind: str(model.embed([text_of(7)]).whole[0].tolist()) for kind, model in (("old", OLD), ("new", NEW))}

    def call(self, kind: str) -> str:
        return FUNCTIONS[self.function][1].format(vector=sql.Literal(self._vectors[kind]).as_string() + "::vector")

    def wrong(self, kind: str, rows: Sequence[Any]) -> list[str]:
        result = [f"{kind}: row {id} of somebody else" for id, *_ in rows if id % 3 != 1]
        if kind == "old":
            query = OLD.embed([text_of(7)]).whole[0]
            texts = OLD.embed([content for _, content, _ in rows]).whole if rows else []
            result += [
                f"old: row {row[0]} at {row[2]}"
                for row, vector_of in zip(rows, texts, strict=True)
                if abs(float(query @ vector_of) - row[2]) > 1e-3
            ]
        return result


@dataclass
class Readers:
    """Somebody who asks with old vectors all the while, and with new ones as soon as the new are in use."""

    url: str
    questions: Questions
    asked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def reading(self) -> AbstractContextManager[None]:
        return Crowd().acting(self._until)

    def _until(self, stop: threading.Event) -> None:
        with (
            psycopg.connect(self.url, autocommit=True, application_name="reader") as connection,
            psycopg.connect(self.url, autocommit=True, application_name="reader") as owner,
        ):
            if self.questions.settings:
                connection.execute(self.questions.settings)  # type: ignore[call-overload]
            while not stop.wait(0.02):
                self._ask(connection, "old")
                if self.questions.in_use(owner):
                    wrong = len(self.wrong)
                    self._ask(connection, "new")
                    if not self.questions.in_use(owner):  # it was taken back meanwhile
                        del self.wrong[wrong:]

    def _ask(self, connection: "psycopg.Connection[Any]", kind: str) -> None:
        self.asked[kind] += 1
        try:
            rows = connection.execute(self.questions.call(kind)).fetchall()  # type: ignore[call-overload]
        except psycopg.Error as error:
            self.wrong.append(f"{kind}: {error}")
            return
        self.wrong += self.questions.wrong(kind, rows) if rows else [f"{kind}: nothing"]


def active_dimensions(connection: "psycopg.Connection[Any]", table: str) -> int | None:
    """Of the vectors that a table is searched by."""
    there = connection.execute("SELECT to_regclass('vecferry.active_space') IS NOT NULL").fetchone()
    if there != (True,):
        return None
    row = connection.execute("SELECT dimensions FROM vecferry.active_space WHERE table_name = %s", (table,)).fetchone()
    return row[0] if row else None
