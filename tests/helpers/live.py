"""A live table with people writing to it, and a look at both sides that uses none of the code that migrates."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import psycopg

from tasks.embedders.hashing import HashingEmbedder
from tests.helpers.crowd import Crowd

KINDS = ("insert", "text", "other", "delete", "reuse", "key")
OLD, NEW = HashingEmbedder(384), HashingEmbedder(1536)


def text_of(seed: object) -> str:
    """A text of its own for every seed: rows that differ in one word have no neighbours worth finding."""
    chance = random.Random(str(seed))
    return f"{seed}: " + " ".join("".join(chance.choices("bcdfglmnprst", k=3)) for _ in range(12))


def make_table(connection: "psycopg.Connection[Any]", rows: int) -> None:
    """``docs``, with an index and a search function on its old vectors."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute(
        "CREATE TABLE docs (id bigint PRIMARY KEY, content text, seen int NOT NULL DEFAULT 0, embedding vector(384))"
    )
    old = OLD.embed([text_of(i) for i in range(rows)]).whole
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO docs (id, content, embedding) VALUES (%s, %s, %s)",
            [(i, text_of(i), str(v.tolist())) for i, v in enumerate(old)],
        )
    connection.execute("CREATE INDEX docs_old ON docs USING hnsw (embedding vector_cosine_ops)")
    connection.execute(
        "CREATE FUNCTION match_docs(query_embedding vector(384), match_threshold float, match_count int) "
        "RETURNS TABLE (id bigint, content text, similarity float) LANGUAGE sql STABLE AS $$ "
        "SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding) FROM docs d "
        "WHERE 1 - (d.embedding <=> query_embedding) > match_threshold ORDER BY d.embedding <=> query_embedding LIMIT match_count $$"
    )


Write = Callable[["psycopg.Connection[Any]", random.Random, int, int, str], None]
"""Makes one change of a kind: connection, chance, the writer's number, the number of the change, kind."""


@dataclass
class Writers:
    """Several connections that make changes of all kinds in turn, all at once."""

    url: str
    write: Write
    kinds: Sequence[str]
    count: int = 4
    pause: float = 0.04
    wrote: Counter[str] = field(default_factory=Counter)
    crowd: Crowd = field(default_factory=Crowd)

    def writing(self) -> AbstractContextManager[None]:
        return self.crowd.acting(*(partial(self._until, number) for number in range(self.count)))

    def _until(self, number: int, stop: threading.Event) -> None:
        chance, step = random.Random(number), 0
        with psycopg.connect(self.url, autocommit=True, application_name="writer") as connection:
            while not stop.wait(self.pause):
                with self.crowd.step(number):
                    step += 1
                    kind = self.kinds[step % len(self.kinds)]
                    self.write(connection, chance, number, step, kind)
                    self.wrote[kind] += 1


def write_text(connection: "psycopg.Connection[Any]", chance: random.Random, number: int, step: int, kind: str) -> None:
    """Inserts, changes a text or another column, deletes, reuses or changes a key."""
    text: str | None
    text, new = text_of(f"writer {number}, {step}"), 1_000_000 * (number + 1) + step
    if kind == "text" and step % 3 == 0:
        text = None
    old = text and str(OLD.embed([text]).whole[0].tolist())  # what an application before the switch does
    row = connection.execute("SELECT id FROM docs TABLESAMPLE SYSTEM (50) ORDER BY random() LIMIT 1").fetchone()
    name = row[0] if row else new
    with connection.transaction():
        if kind == "insert":
            connection.execute("INSERT INTO docs (id, content, embedding) VALUES (%s, %s, %s)", (new, text, old))
        elif kind == "text":
            connection.execute("UPDATE docs SET content = %s, embedding = %s WHERE id = %s", (text, old, name))
        elif kind == "other":
            connection.execute("UPDATE docs SET seen = seen + 1 WHERE id = %s", (name,))
        elif kind == "key":
            connection.execute("UPDATE docs SET id = %s WHERE id = %s", (new, name))
        else:
            connection.execute("DELETE FROM docs WHERE id = %s", (name,))
            if kind == "reuse":
                connection.execute(
                    "INSERT INTO docs (id, content, embedding) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    (name, text, old),
                )


def faults(connection: "psycopg.Connection[Any]") -> list[str]:
    """Every row whose new vector is missing, stale or of no row, by name."""
    place = connection.execute(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' "
        "AND NOT a.attisdropped WHERE c.relnamespace = 'vecferry'::regnamespace AND c.relkind = 'r' AND c.relname LIKE 'docs%'"
    ).fetchone()
    query = f"SELECT k1, embedding::text FROM {place[0]}" if place else "SELECT id, embedding_1536::text FROM docs"
    kept = {name: vector for name, vector in connection.execute(query) if vector is not None}  # type: ignore[arg-type]
    rows = dict(connection.execute("SELECT id, content FROM docs WHERE content <> ''").fetchall())
    result = [f"{name} is missing" for name in rows.keys() - kept.keys()]
    result += [f"{name} is orphaned" for name in kept.keys() - rows.keys()]
    both = sorted(rows.keys() & kept.keys())
    if both:
        expected = NEW.embed([rows[name] for name in both]).whole
        for name, vector in zip(both, expected, strict=True):
            if not np.allclose(np.array(kept[name][1:-1].split(","), np.float32), vector, atol=1e-5):
                result.append(f"{name} is stale")
    return sorted(result)
