"""``flows.client`` over tables that people have: names that need quotes, keys of any type, vectors in the chunks themselves."""

from typing import Any

import numpy as np
import pytest

from flows.client import Client
from tasks.base.errors import UsageError
from tasks.embedders.registry import open_embedder
from tasks.shadows.postgres.models import init, setup
from tasks.shadows.postgres.models.init import Asked, Source
from tasks.shadows.postgres.models.setup import Wanted
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import Roles


def initialised(connection: Connection, roles: Roles, *further: str) -> None:
    """The tables serve hashing/64, whose vectors they came with, and these."""
    tables, _ = init.initialise(connection, Asked(roles, Source("hashing/64", open_embedder("hashing/64").space)))
    setup.set_up(connection, tables, [Wanted(name, open_embedder(name).space) for name in further])


def stored(connection: Connection, query: str) -> dict[str, np.ndarray]:
    return {text: np.array(v, np.float32) for text, v in connection.execute(query).fetchall() if v is not None}


def test_a_column_of_the_chunks_themselves(connection: Connection) -> None:
    """What the tables came with is searched where it lies, and written there; a further model's vectors lie beside."""
    connection.execute(
        'CREATE SCHEMA rag; CREATE TABLE rag."The Docs" (uid uuid PRIMARY KEY DEFAULT gen_random_uuid(), "Title" text, body text);'
        'CREATE TABLE rag."filter" ("the key" text PRIMARY KEY, doc uuid NOT NULL REFERENCES rag."The Docs", query text, '
        'embedding vector(64)); CREATE INDEX ON rag."filter" USING hnsw (embedding vector_cosine_ops)'
    )
    roles = Roles(documents={"title": "Title", "text": "body"}, chunks={"table": 'rag."filter"', "text": "query"})
    initialised(connection, roles, "hashing/32")
    with Client(connections=2) as client:
        key = client.ingest_document("One", "words of the first\n\nand more of them", "hashing/64")
        client.ingest_document("Two", "other words entirely", "hashing/32")
        vectors = stored(connection, 'SELECT query, embedding::real[] FROM rag."filter"')
        assert list(vectors) == ["words of the first\n\nand more of them"]
        for text, vector in vectors.items():
            assert np.allclose(vector, open_embedder("hashing/64").embed([text]).whole[0])
        [hit] = client.search("words of the first")
        assert (hit.document_id, hit.title, hit.model) == (key, "One", "hashing/64")
        [other] = client.search("words", "hashing/32")
        assert other.title == "Two"
        assert client.update_document_embeddings(str(key), "hashing/32") == 1
        both = client.search_multi_model("first words", ["hashing/64", "hashing/32"], "intersection")
        assert [hit.document_id for hit in both] == [key]
        assert client.update_document(key, "a text in its place", "Renamed") == 1
        assert {of.model: of.chunks for of in client.document_embeddings(key).models} == {
            "hashing/64": 1,
            "hashing/32": 1,
        }
        assert client.search("a text in its place")[0].title == "Renamed"
        with pytest.raises(UsageError, match="no metadata to filter by"):
            client.search("x", filter={"a": 1})
        with pytest.raises(UsageError, match="no jsonb column of metadata"):
            client.ingest_document("x", "y", metadata={"a": 1})
    probe = open_embedder("hashing/64").embed(["a text"]).whole[0].tolist()
    with connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        plan = connection.execute(f"EXPLAIN SELECT * FROM rag.search_chunks_1('{probe}', 1)").fetchall()
    assert "Index Scan using filter_embedding_idx" in "\n".join(line for (line,) in plan)


def test_a_chunk_that_is_its_document(connection: Connection) -> None:
    """One row is found, written and updated as a whole, however long it is."""
    connection.execute(
        "CREATE TABLE articles (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, content text, embedding vector(64))"
    )
    itself = {"table": "articles"}
    initialised(connection, Roles(documents=itself, chunks=itself), "hashing/32")
    text = "A long paragraph of words. " * 100
    with Client(connections=2) as client:
        key = client.ingest_document("Long", text)
        assert client.document_embeddings(key).chunks == 1
        [hit] = client.search(text, top_k=2)
        assert (hit.chunk_id, hit.document_id, hit.title, hit.content) == (key, key, "Long", text)
        assert client.update_document(key, "short") == 1
        assert client.search("short")[0].content == "short"
    assert connection.execute("SELECT count(*) FROM articles").fetchone() == (1,)


def test_a_table_that_needs_more_is_refused_by_its_column(connection: Connection) -> None:
    """A column that takes no null and has no default is named; nothing has been written."""
    tables, _ = init.initialise(connection, Asked())
    setup.set_up(connection, tables, [Wanted("hashing/64", open_embedder("hashing/64").space)])
    changes: list[tuple[str, str]] = [("documents", "author"), ("document_chunks", "page")]
    with Client(connections=2) as client:
        for table, column in changes:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} text NOT NULL")
            with pytest.raises(UsageError, match=f"public.{table}.{column} takes no null and has no default"):
                client.ingest_document("x", "y")
            connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT 'nobody'")
        key: Any = client.ingest_document("x", "y")
    assert connection.execute("SELECT id, author FROM documents").fetchall() == [(key, "nobody")]
