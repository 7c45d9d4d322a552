"""Live tables to migrate, with ~60 words a row, an old vector and a search function, and the server that embeds them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql

from benchmarks import fixtures
from benchmarks.elsewhere import Enter

WORDS = 60
_SYLLABLES = np.array([a + b + c for a in "bcdfglmnpr" for b in "aeiou" for c in ("", "n", "r", "st")])
_VOCABULARY = np.array([x + y for x in _SYLLABLES[::3] for y in _SYLLABLES[::2]])


@lru_cache(maxsize=1)
def texts(rows: int) -> list[str]:
    """Different texts of WORDS words, about 300 characters; the same ones every time."""
    random = np.random.default_rng(5)
    return [f"{at}: {' '.join(random.choice(_VOCABULARY, WORDS))}" for at in range(rows)]


def make_table(url: str, name: str, rows: int) -> None:
    """Table ``name`` (id bigint, content text, embedding vector(384)) with its primary key, an HNSW index on the vectors and
    the function match_NAME."""
    vectors = fixtures.vectors_of(rows)
    table = sql.Identifier(name)
    with psycopg.connect(url, autocommit=True) as connection:
        register_vector(connection)
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {} CASCADE").format(table))
        connection.execute(
            sql.SQL("CREATE TABLE {} (id bigint PRIMARY KEY, content text NOT NULL, embedding vector(384))").format(
                table
            )
        )
        command = sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(table)
        with connection.cursor() as cursor, cursor.copy(command) as copy:
            copy.set_types(["int8", "text", "vector"])
            for at, text in enumerate(texts(rows)):
                copy.write_row((at, text, vectors[at]))
        connection.execute("SET maintenance_work_mem = '512MB'")
        connection.execute(sql.SQL("CREATE INDEX ON {} USING hnsw (embedding vector_cosine_ops)").format(table))
        connection.execute(
            sql.SQL(
                "CREATE OR REPLACE FUNCTION {function}(query_embedding vector(384), match_threshold float, match_count int) "
                "RETURNS TABLE (id bigint, content text, similarity float) LANGUAGE sql STABLE AS $$ "
                "SELECT d.id, d.content, 1 - (d.embedding <=> query_embedding) FROM {table} d "
                "WHERE 1 - (d.embedding <=> query_embedding) > match_threshold "
                "ORDER BY d.embedding <=> query_embedding LIMIT match_count $$"
            ).format(function=sql.Identifier(f"match_{name}"), table=table)
        )
        connection.execute(sql.SQL("VACUUM ANALYZE {}").format(table))


@contextmanager
def provider(enter: Enter | None = None) -> Iterator[str]:
    """The base URL of a local server with OpenAI's embeddings API, in a process of its own."""
    command = [sys.executable, "-m", "tests.helpers.openai_server"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=enter)
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(20)
