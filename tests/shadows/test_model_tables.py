"""Tables that serve several models: prepared, given models, switched."""

import pytest

from tasks.base.errors import UsageError, VerificationRefused
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import coverage, registry
from tasks.shadows.postgres import model_init, model_setup, model_switch
from tasks.shadows.postgres.model_init import Asked, Source
from tasks.shadows.postgres.model_setup import Wanted
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables, Roles
from tests.helpers.sent import only_files_of_sql


def wanted(*dimensions: int) -> list[Wanted]:
    return [Wanted(f"hashing/{n}", HashingEmbedder(n).space) for n in dimensions]


def prepared(connection: Connection, *dimensions: int) -> ModelTables:
    """New tables that serve such models."""
    tables, _ = model_init.initialise(connection, Asked())
    model_setup.set_up(connection, tables, wanted(*dimensions))
    return tables


def filled(connection: Connection, chunks: int) -> None:
    """One document of so many chunks."""
    connection.execute("INSERT INTO documents (id, title) VALUES (1, 'a')")
    connection.execute(
        "INSERT INTO document_chunks (id, document_id, chunk_index, content) SELECT n, 1, n, 'text ' || n FROM generate_series(1, %s) n",
        (chunks,),
    )


def test_an_empty_database_gets_the_guides_tables(connection: Connection) -> None:
    """A column and an index for each number of dimensions, by halfvec where vector has none, and none beyond that."""
    with only_files_of_sql():
        tables = prepared(connection, 384, 768, 3072, 5000)
    indexes = dict(
        connection.execute(
            "SELECT indexname, substring(indexdef FROM 'hnsw (.*) WITH') FROM pg_indexes WHERE indexdef LIKE '%%hnsw%%'"
        ).fetchall()
    )
    assert indexes == {
        "idx_embeddings_hnsw_384": "(embedding_384 vector_cosine_ops)",
        "idx_embeddings_hnsw_768": "(embedding_768 vector_cosine_ops)",
        "idx_embeddings_hnsw_3072": "(((embedding_3072)::halfvec(3072)) halfvec_cosine_ops)",
    }
    assert [(m.bare, m.active, m.column) for m in registry.listed(connection, tables)] == [
        ("384", True, "embedding_384"),
        ("768", False, "embedding_768"),
        ("3072", False, "embedding_3072"),
        ("5000", False, "embedding_5000"),
    ]
    assert model_init.initialise(connection, Asked()) == (tables, [])
    assert model_setup.set_up(connection, tables, wanted(384)) == []
    assert model_tables.find(connection) == tables


def test_two_models_of_one_size_share_a_column(connection: Connection) -> None:
    """And are kept apart by their numbers."""
    tables = prepared(connection, 8)
    model_setup.set_up(connection, tables, [Wanted("hashing/other", HashingEmbedder(8).space)])
    assert [m.column for m in registry.listed(connection, tables)] == ["embedding_8", "embedding_8"]
    filled(connection, 3)
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_8) SELECT 1, n, '[1,2,3,4,5,6,7,8]' FROM generate_series(1, 2) n"
    )
    assert [c.with_vector for c in coverage.covered(connection, tables).values()] == [1, 1]


def test_a_model_is_found_by_any_name_that_is_unique(connection: Connection) -> None:
    """Whole, without its provider, or without options; where two could be meant both are named."""
    tables = prepared(connection, 8)
    other = HashingEmbedder(4).space
    model_setup.set_up(
        connection,
        tables,
        [Wanted("openai/large?dimensions=4", other), Wanted("openai/large", HashingEmbedder(6).space)],
    )
    assert registry.named(connection, tables, "8").name == "hashing/8"
    assert registry.named(connection, tables, "large").name == "openai/large"
    assert registry.named(connection, tables, "large?dimensions=4").dimensions == 4
    with pytest.raises(UsageError, match="no model 'tiny' is registered; there are hashing/8, openai/large"):
        registry.named(connection, tables, "tiny")


def test_a_model_with_other_dimensions_is_refused(connection: Connection) -> None:
    """The guide's error, by name and with both numbers."""
    tables = prepared(connection, 8)
    with pytest.raises(UsageError, match="model hashing/8 exists with 8 dimensions, not 4"):
        model_setup.set_up(connection, tables, [Wanted("hashing/8", HashingEmbedder(4).space)])


def test_a_switch_waits_for_coverage_and_goes_back(connection: Connection) -> None:
    """Refused with the numbers, unless forced; back the same way; the active model cannot end."""
    tables = prepared(connection, 8, 4)
    filled(connection, 3)
    connection.execute("INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) VALUES (1, 2, '[1,2,3,4]')")
    with pytest.raises(
        VerificationRefused, match=r"hashing/4 covers 1 of 3 chunks \(33.3%\): 2 chunks would not be found"
    ):
        model_switch.activate(connection, tables, "4")
    assert registry.default(connection, tables).name == "hashing/8"
    model_switch.activate(connection, tables, "4", force=True)
    assert registry.default(connection, tables).name == "hashing/4"
    with pytest.raises(UsageError, match="hashing/4 is active: make another one the default first"):
        model_switch.end(connection, tables, "4")
    model_switch.activate(connection, tables, "hashing/8", force=True)
    model_switch.end(connection, tables, "4")
    with pytest.raises(UsageError, match="hashing/4 is retired from search"):
        registry.may_be_searched(registry.named(connection, tables, "4"))


def test_the_column_that_tables_came_with_is_taken_over_without_a_rewrite(connection: Connection) -> None:
    """The table's file stays the same, an INSERT that names no model goes on, and the column need not be filled any more."""
    connection.execute(
        "CREATE TABLE documents (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title text);"
        "CREATE TABLE document_chunks (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), document_id uuid REFERENCES documents, content text);"
        "CREATE TABLE chunk_embeddings (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), chunk_id uuid REFERENCES document_chunks, "
        "embedding vector(8) NOT NULL);"
        "CREATE INDEX ours ON chunk_embeddings USING hnsw (embedding vector_cosine_ops);"
        "INSERT INTO documents (title) VALUES ('a');"
        "INSERT INTO document_chunks (document_id, content) SELECT id, 'text ' || n FROM documents, generate_series(1, 3) n;"
        "INSERT INTO chunk_embeddings (chunk_id, embedding) SELECT id, '[1,2,3,4,5,6,7,8]' FROM document_chunks LIMIT 2"
    )
    node = "SELECT relfilenode FROM pg_class WHERE relname IN ('chunk_embeddings', 'ours') ORDER BY 1"
    before = connection.execute(node).fetchall()
    with only_files_of_sql():
        tables, _ = model_init.initialise(connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space)))
        model_setup.set_up(connection, tables, wanted(4))
    assert connection.execute(node).fetchall() == before
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, embedding) SELECT id, '[1,2,3,4,5,6,7,8]' FROM document_chunks c "
        "WHERE NOT EXISTS (SELECT FROM chunk_embeddings e WHERE e.chunk_id = c.id)"
    )
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) SELECT id, 2, '[1,2,3,4]' FROM document_chunks"
    )
    own, new = registry.listed(connection, tables)
    assert (own.column, own.active, own.searched) == ("embedding", True, True)
    assert [c.with_vector for c in coverage.covered(connection, tables).values()] == [3, 3]
    assert new.column == "embedding_4"
    hnsw = "SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%%hnsw%%'"
    assert connection.execute(hnsw).fetchone() == (2,)


def test_the_model_of_vectors_that_are_there_is_asked_for(connection: Connection) -> None:
    """And is held against their size; nothing has been changed by then."""
    connection.execute(
        "CREATE TABLE documents (id int PRIMARY KEY); CREATE TABLE document_chunks (id int PRIMARY KEY, document_id int "
        "REFERENCES documents, content text, embedding vector(8))"
    )
    with pytest.raises(UsageError, match=r"document_chunks.embedding holds vectors of 8 dimensions.*-p source_model="):
        model_init.initialise(connection, Asked())
    with pytest.raises(
        UsageError, match=r"hashing/4 makes vectors of 4 dimensions, and public.document_chunks.embedding has 8"
    ):
        model_init.initialise(connection, Asked(source=Source("hashing/4", HashingEmbedder(4).space)))
    assert connection.execute("SELECT to_regclass('chunk_embeddings'), to_regclass('vecferry.run')").fetchone() == (
        None,
        None,
    )


def test_tables_of_other_names(connection: Connection) -> None:
    """Foreign keys tell which they are, and a column that nothing tells of is asked for by name."""
    connection.execute(
        'CREATE SCHEMA rag; CREATE TABLE rag."Articles" (nr int PRIMARY KEY, name text); CREATE TABLE rag.passages '
        '(key text PRIMARY KEY, article int REFERENCES rag."Articles", words text, lead text);'
        "CREATE TABLE rag.vectors (passage text REFERENCES rag.passages, v vector(8))"
    )
    named = Roles(embeddings={"table": "rag.vectors"})
    with pytest.raises(
        UsageError, match=r"which column of rag.passages is the text\? Name it with -p roles.chunks.text=COLUMN"
    ):
        model_init.draft(connection, Asked(named))
    named = Roles(chunks={"text": "words"}, embeddings={"table": "rag.vectors"})
    source = Source("hashing/8", HashingEmbedder(8).space)
    tables, _ = model_init.initialise(connection, Asked(named, source))
    assert (str(tables.documents), str(tables.chunks), tables.chunks.document) == (
        "rag.Articles",
        "rag.passages",
        "article",
    )
    assert connection.execute("SELECT model_name, is_active FROM rag.embedding_models").fetchall() == [("8", True)]
    assert model_tables.find(connection, Roles(chunks={"table": "rag.passages"})) == tables
    with pytest.raises(UsageError, match="serve no models yet"):
        model_tables.find(connection, Roles(chunks={"table": "rag.other"}))


def test_a_name_that_is_wrong_makes_no_tables(connection: Connection) -> None:
    """Where others have vectors, these are named instead."""
    connection.execute("CREATE TABLE pages (id int PRIMARY KEY, v vector(8))")
    with pytest.raises(UsageError, match=r"there is no table document_chunks; tables with vectors are public.pages"):
        model_init.draft(connection, Asked())
    with pytest.raises(UsageError, match="there is no table passages"):
        model_init.draft(connection, Asked(Roles(chunks={"table": "passages"})))
    assert model_init.draft(connection, Asked(create=True)).detected is not None
