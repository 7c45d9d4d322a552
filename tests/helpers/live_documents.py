"""Documents and chunks with vectors of two models, people who write to them, and a look at all of it that uses none of the code
that migrates."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg

from tasks.shadows.postgres.models import init, setup
from tasks.shadows.postgres.models.init import Asked, Source
from tasks.shadows.postgres.models.setup import Wanted
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.connection import connect
from tests.helpers.counting import CountingTexts
from tests.helpers.live import text_of

KINDS = ("document", "text", "other", "later", "delete", "gone", "reuse")
CHUNKS = 2
"""Of a document."""
FEWEST = 300
"""Chunks below which none is deleted, so that there is something to search for as long as people write."""
MADE = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE documents (id bigint PRIMARY KEY, title text NOT NULL, content text);
CREATE TABLE document_chunks (id bigint PRIMARY KEY, document_id bigint NOT NULL REFERENCES documents ON DELETE CASCADE,
    chunk_index int NOT NULL, content text, said text[] NOT NULL DEFAULT '{{}}');
CREATE TABLE chunk_embeddings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chunk_id bigint NOT NULL REFERENCES document_chunks ON DELETE CASCADE, embedding vector({dims}));
CREATE INDEX ON document_chunks (document_id);
CREATE INDEX ON chunk_embeddings USING hnsw (embedding vector_cosine_ops)
"""
"""A chunk keeps what it said before, so that answers that are a moment behind can be told from wrong ones."""


@dataclass(frozen=True)
class Documents:
    """The tables, searched by ``old`` and, once people use it, by ``new``. Who writes a chunk writes the vector of the model that is the
    default then, and leaves the other's to vecferry."""

    old: CountingTexts
    new: CountingTexts

    def make(self, connection: "psycopg.Connection[Any]", chunks: int) -> None:
        connection.execute(MADE.format(dims=self.old.dimensions))
        texts = [text_of(n) for n in range(chunks)]
        vectors = self.old.embed(texts).whole
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO documents (id, title) VALUES (%s, %s)", [(n, f"{n}") for n in range(0, chunks, CHUNKS)]
            )
            cursor.executemany(
                "INSERT INTO document_chunks (id, document_id, chunk_index, content) VALUES (%s, %s, %s, %s)",
                [(n, n - n % CHUNKS, n % CHUNKS, text) for n, text in enumerate(texts)],
            )
            cursor.executemany(
                "INSERT INTO chunk_embeddings (chunk_id, embedding) VALUES (%s, %s)",
                [(n, str(vector.tolist())) for n, vector in enumerate(vectors)],
            )
        with connect(connection.info.dsn, "application") as own:
            init.initialise(own, Asked(source=Source(self.old.name, self.old.space)))
            setup.set_up(own, model_tables.find(own), [Wanted(self.new.name, self.new.space)])

    def write(
        self, connection: "psycopg.Connection[Any]", chance: random.Random, number: int, step: int, kind: str
    ) -> None:
        """Inserts a document, a chunk and its vector in one transaction or two; changes a text or another column; deletes a chunk or
        a document, or reuses its key."""
        new = 1_000_000 * (number + 1) + CHUNKS * step
        row = connection.execute(
            "SELECT id, document_id FROM document_chunks TABLESAMPLE SYSTEM (50) WHERE chunk_index >= 0 ORDER BY random() LIMIT 1"
        ).fetchone()
        chunk, document = row or (new, new)
        (chunks,) = connection.execute("SELECT count(*) FROM document_chunks").fetchone() or (0,)
        if kind in ("gone", "delete") and chunks < FEWEST:
            kind = "document"
        texts = [text_of(f"writer {number}, {step}, {n}") for n in range(CHUNKS)]
        change = None if kind == "text" and step % 3 == 0 else texts[0]
        if kind == "later":  # no other writer has the chunk before its vector is there
            with connection.transaction():
                self._insert(connection, new, document, texts[0], index=-1)
            with connection.transaction():
                self._vector(connection, new, texts[0])
            connection.execute("UPDATE document_chunks SET chunk_index = 0 WHERE id = %s", (new,))
            return
        with connection.transaction():
            if kind == "document":
                connection.execute("INSERT INTO documents (id, title) VALUES (%s, %s)", (new, texts[0][:20]))
                for at, text in enumerate(texts):
                    self._insert(connection, new + at, new, text)
                    self._vector(connection, new + at, text)
            elif kind == "text":
                changed = connection.execute(
                    "UPDATE document_chunks SET said = said || content, content = %s WHERE id = %s", (change, chunk)
                )
                if changed.rowcount:
                    self._renew(connection, chunk, change)
            elif kind == "other":
                connection.execute("UPDATE document_chunks SET chunk_index = chunk_index + 1 WHERE id = %s", (chunk,))
            elif kind == "gone":
                connection.execute("DELETE FROM documents WHERE id = %s", (document,))
            else:  # a document that is deleted takes its chunks: who reuses one has the document first
                connection.execute("SELECT FROM documents WHERE id = %s FOR KEY SHARE", (document,))
                before = connection.execute(
                    "DELETE FROM document_chunks WHERE id = %s RETURNING said || content", (chunk,)
                ).fetchone()
                if kind == "reuse" and before:
                    self._insert(connection, chunk, document, change, before[0])
                    self._vector(connection, chunk, change)

    def _insert(
        self,
        connection: "psycopg.Connection[Any]",
        chunk: int,
        document: int,
        text: str | None,
        earlier: Sequence[str] = (),
        index: int = 0,
    ) -> None:
        connection.execute(
            "INSERT INTO document_chunks (id, document_id, chunk_index, content, said) SELECT %s, id, %s, %s, %s FROM documents "
            "WHERE id = %s FOR KEY SHARE",
            (chunk, index, text, list(earlier), document),
        )

    def _vector(self, connection: "psycopg.Connection[Any]", chunk: int, text: str | None) -> None:
        """A plain INSERT, as the application has it; of a chunk that is gone there is nothing to insert."""
        number, column, model = self._default(connection)
        connection.execute(
            f"INSERT INTO chunk_embeddings (chunk_id, model_id, {column}) SELECT id, %s, %s FROM document_chunks WHERE id = %s "
            "FOR KEY SHARE",
            (number, _vector_of(model, text), chunk),
        )

    def _renew(self, connection: "psycopg.Connection[Any]", chunk: int, text: str | None) -> None:
        number, column, model = self._default(connection)
        connection.execute(
            f"INSERT INTO chunk_embeddings (chunk_id, model_id, {column}) VALUES (%s, %s, %s) "
            f"ON CONFLICT (chunk_id, model_id) DO UPDATE SET {column} = excluded.{column}",
            (chunk, number, _vector_of(model, text)),
        )

    def _default(self, connection: "psycopg.Connection[Any]") -> tuple[int, str, CountingTexts]:
        """The model that is the default now: its number, its column and itself."""
        row = connection.execute("SELECT id, model_name FROM embedding_models WHERE is_active").fetchone()
        assert row
        return row[0], self.column(row[1]), self.new if self.new.name.endswith(f"/{row[1]}") else self.old

    def column(self, bare: str) -> str:
        own = self.old.name.endswith(f"/{bare}") or self.new.dimensions == self.old.dimensions
        return "embedding" if own else f"embedding_{self.new.dimensions}"

    def faults(self, connection: "psycopg.Connection[Any]") -> list[str]:
        """Every chunk whose vector of either model is missing, stale or of no chunk, and counters that do not say what there is."""
        chunks = dict(connection.execute("SELECT id, content FROM document_chunks WHERE content <> ''").fetchall())
        result = []
        for model in (self.old, self.new):
            bare = model.name.partition("/")[2]
            kept = dict(
                connection.execute(
                    f"SELECT e.chunk_id, e.{self.column(bare)}::text FROM chunk_embeddings e JOIN embedding_models m "  # type: ignore[arg-type]
                    f"ON m.id = e.model_id WHERE m.model_name = '{bare}' AND e.{self.column(bare)} IS NOT NULL"
                ).fetchall()
            )
            result += [f"{bare}: {name} is missing" for name in chunks.keys() - kept.keys()]
            result += [f"{bare}: {name} is orphaned" for name in kept.keys() - chunks.keys()]
            both = sorted(chunks.keys() & kept.keys())
            expected = model.embed([chunks[name] for name in both]).whole if both else []
            for name, vector in zip(both, expected, strict=True):
                if not np.allclose(np.array(kept[name][1:-1].split(","), np.float32), vector, atol=1e-5):
                    result.append(f"{bare}: {name} is stale")
            counted = connection.execute(
                "SELECT embeddings, chunks FROM vecferry.embeddings_by_model WHERE model = %s", (model.name,)
            ).fetchone()
            if counted != (len(kept), len(chunks)):
                result.append(f"{bare}: counted are {counted}, and there are {len(kept)} of {len(chunks)}")
        return sorted(result)


@dataclass(frozen=True)
class DocumentQuestions:
    """What is asked of the search functions, each in its turn: by the model's name, by its own function, and by both models."""

    documents: Documents
    settings: str = "SET hnsw.iterative_scan = strict_order"
    _turn: Iterator[int] = field(default_factory=itertools.count)

    def in_use(self, connection: "psycopg.Connection[Any]") -> bool:
        row = connection.execute("SELECT model_name FROM embedding_models WHERE is_active").fetchone()
        return row is not None and self.documents.new.name.endswith(f"/{row[0]}")

    def call(self, kind: str) -> str:
        model = self.documents.old if kind == "old" else self.documents.new
        number = 1 if kind == "old" else 2
        one = f"'{_vector_of(model, text_of(7))}'::vector"
        column = self.documents.column(model.name.partition("/")[2])
        there = f"(SELECT count(*) FROM chunk_embeddings e WHERE e.model_id = {number} AND e.{column} IS NOT NULL)"
        turn = next(self._turn) % (2 if kind == "old" else 3)
        if turn == 0:
            asked = f"search_chunks({one}, 8, '{model.name}')"
        elif turn == 1:
            asked = f"search_chunks_{number}({one}, 8)"
        else:
            other = self.documents.old
            vectors = f"ARRAY[{one}, '{_vector_of(other, text_of(7))}'::vector]"
            names = f"ARRAY['{model.name}', '{other.name}']"
            return (
                f"SELECT {there}, s.chunk_id, s.content, c.said, s.similarities, s.models FROM search_chunks_multi({vectors}, {names}, "
                "'union', 8) AS s JOIN document_chunks c ON c.id = s.chunk_id ORDER BY s.rank"
            )
        return (
            f"SELECT {there}, s.chunk_id, s.content, c.said, ARRAY[s.similarity], ARRAY[s.model] "
            f"FROM {asked} AS s JOIN document_chunks c ON c.id = s.chunk_id ORDER BY s.rank"
        )

    def wrong(self, kind: str, rows: Sequence[Any]) -> list[str]:
        wanted = min(8, rows[0][0])  # the model that is not the default has no more than catching up has brought
        result = [] if len(rows) == wanted else [f"{kind}: {len(rows)} chunks in place of {wanted}"]
        for _, chunk, content, earlier, similarities, models in rows:
            texts = [text for text in (content, *earlier) if text]
            for similarity, name in zip(similarities, models, strict=True):
                model = next(m for m in (self.documents.old, self.documents.new) if m.name == name)
                query, *made = model.embed([text_of(7), *texts]).whole
                if not any(abs(float(query @ vector) - similarity) < 1e-3 for vector in made):
                    result.append(f"{kind}: chunk {chunk} at {similarity} by {name}")
        return result


def _vector_of(model: CountingTexts, text: str | None) -> str | None:
    return None if text is None else str(model.embed([text]).whole[0].tolist())
