"""The SQL functions that search by several models: what they answer, through which index, and for whom."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from tasks.base.errors import UsageError
from tasks.embedders.registry import open_embedder
from tasks.runs import registry
from tasks.shadows.postgres.models import functions
from tasks.shadows.postgres.superseded import drop_superseded
from tasks.stores.postgres.connection import Connection
from tests.helpers.several_models import WORDS, Several

MODELS, ROWS = ("hashing/64", "flipped/64", "hashing/2100"), 150


def vector(model: str, text: str) -> str:
    return json.dumps(open_embedder(model).embed([text]).whole[0].tolist())


def asked(connection: Connection, call: str, *values: Any) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT * FROM {call}", values).fetchall()


def exact(served: Several, model: str, text: str, k: int, where: str = "true") -> list[int]:
    """Chunks by the similarity of their text's vectors, all compared."""
    rows = served.connection.execute(f"SELECT id, content FROM document_chunks WHERE {where} ORDER BY id").fetchall()
    embedder = open_embedder(model)
    scores = embedder.embed([content for _, content in rows]).whole @ embedder.embed([text]).whole[0]
    return [rows[at][0] for at in np.argsort(-scores, kind="stable")[:k]]


def test_each_function_goes_through_the_index_of_its_dimensions(served: Several) -> None:
    """EXPLAIN of a model's own function shows it, the number of the model beside it; the function that chooses uses it too."""
    with served.connection.transaction():
        served.connection.execute("SET LOCAL enable_seqscan = off")
        served.connection.execute("SET LOCAL enable_bitmapscan = off")
        for name in MODELS:
            model = served.model(name)
            probe = vector(name, "ship river")
            rows = asked(served.connection, f"search_chunks_{model.number}(%s, 3)", probe)
            assert len(rows) == 3
            plan = "\n".join(
                line
                for (line,) in served.connection.execute(
                    f"EXPLAIN SELECT * FROM search_chunks_{model.number}('{probe}', 3)"
                )
            )
            assert f"Index Scan using idx_embeddings_hnsw_{model.dimensions}" in plan
            assert f"(model_id = '{model.id}'::bigint)" in plan
    index = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'idx_embeddings_hnsw_2100'"
    flush = "SELECT pg_stat_force_next_flush()"
    served.connection.execute("SET enable_seqscan = off")
    served.connection.execute("SET enable_bitmapscan = off")
    served.connection.execute("SET enable_sort = off")
    for call, values in (
        ("search_chunks(%s, 3, '2100')", [vector("hashing/2100", "ship")]),
        ("search_chunks_multi(ARRAY[%s]::vector[], ARRAY['2100'])", [vector("hashing/2100", "ship")]),
    ):
        served.connection.execute(flush)
        before = served.connection.execute(index).fetchone()
        assert asked(served.connection, call, *values)
        served.connection.execute(flush)
        after = served.connection.execute(index).fetchone()
        assert before
        assert after
        assert after[0] == before[0] + 1, call


def test_the_nearest_are_nearly_all_given(served: Several) -> None:
    """Recall@10 through the index against every row compared, of a model that shares its column and of one indexed by halves."""
    queries = [f"{first} {second} of" for first, second in pairwise(WORDS)]
    texts: dict[int, str] = dict(
        served.connection.execute("SELECT id, content FROM document_chunks ORDER BY id").fetchall()
    )
    served.connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
    for name in MODELS:
        embedder = open_embedder(name)
        matrix, probes = embedder.embed(list(texts.values())).whole, embedder.embed(queries).whole
        shares = []
        for probe in probes:
            scores = np.sort(matrix @ probe)[::-1]
            rows = asked(served.connection, "search_chunks(%s, 10, %s)", json.dumps(probe.tolist()), name)
            shares.append(sum(row[4] >= scores[9] - 1e-3 for row in rows) / 10)
        assert np.mean(shares) >= 0.95, name


def test_models_of_one_column_are_never_mixed(served: Several) -> None:
    """Each gives the chunks that are nearest by its own vectors, in their order, with its name, rank and similarity."""
    served.connection.execute("SET enable_indexscan = off")
    for name in MODELS:
        text = "copper violin garden"
        rows = asked(served.connection, "search_chunks(%s, 8, %s)", vector(name, text), name)
        assert {row[5] for row in rows} == {name}
        assert [row[6] for row in rows] == list(range(1, 9))
        embedder = open_embedder(name)
        probe = embedder.embed([text]).whole[0]
        scores = [float(embedder.embed([row[3]]).whole[0] @ probe) for row in rows]
        assert np.allclose([row[4] for row in rows], scores, atol=1e-5)
        assert scores == sorted(scores, reverse=True)
        best = (
            open_embedder(name).embed([text]).whole[0]
            @ open_embedder(name)
            .embed([content for (content,) in served.connection.execute("SELECT content FROM document_chunks")])
            .whole.T
        )
        assert np.allclose(sorted(scores, reverse=True), np.sort(best)[::-1][:8], atol=1e-5)
        titles: dict[int, str] = dict(served.connection.execute("SELECT id, title FROM documents").fetchall())
        assert all(row[2] == titles[row[1]] and row[2] in row[3] for row in rows)


def test_a_filter_gives_as_many_rows_as_are_asked_for(served: Several) -> None:
    """Through the index too, however few of its nearest match: it scans on. The metadata of a document counts as well as that of a
    chunk."""
    served.connection.execute("UPDATE document_chunks SET metadata = '{\"rare\": true}' WHERE id % 29 = 0")
    served.connection.execute("ANALYZE document_chunks")
    served.connection.execute(
        "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET hnsw.ef_search = 10"
    )
    probe = vector("hashing/64", "winter letter")
    for condition in ('{"rare": true}', '{"part": 3}'):
        rows = asked(served.connection, "search_chunks(%s, 10, NULL, %s::jsonb)", probe, condition)
        assert len(rows) == 10
    rare = {id_ for (id_,) in served.connection.execute("SELECT id FROM document_chunks WHERE metadata ? 'rare'")}
    rows = asked(served.connection, "search_chunks(%s, 10, NULL, '{\"rare\": true}')", probe)
    assert {row[0] for row in rows} <= rare


@pytest.fixture
def reader(served: Several, database: str) -> Iterator[Connection]:
    """A role that sees the documents of one part, and their chunks."""
    connection = served.connection
    connection.execute(
        """
        DO $$ BEGIN CREATE ROLE reader_of_part; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT SELECT ON documents, document_chunks, chunk_embeddings TO reader_of_part;
        ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
        CREATE POLICY part ON documents FOR SELECT TO reader_of_part USING (metadata @> '{"part": 3}');
        """
    )
    with psycopg.connect(database, autocommit=True) as lent:
        lent.execute("SET ROLE reader_of_part")
        yield lent


def test_row_level_security_holds(served: Several, reader: Connection) -> None:
    """The functions are the caller's own queries: he gets the nearest of what he may see, as many as he asks for, by one model and
    by several; without a right to read, nothing."""
    unbounded = asked(served.connection, "search_chunks(%s, 20)", vector("hashing/64", "winter letter"))
    assert len({row[1] % 10 for row in unbounded}) > 1
    reader.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
    rows = asked(reader, "search_chunks(%s, 12)", vector("hashing/64", "winter letter"))
    assert len(rows) == 12
    visible = {id_ for (id_,) in reader.execute("SELECT id FROM documents")}
    assert {row[1] for row in rows} <= visible
    fused = asked(
        reader,
        "search_chunks_multi(ARRAY[%s, %s]::vector[], ARRAY['hashing/64', 'flipped/64'], top_k => 12)",
        vector("hashing/64", "winter"),
        vector("flipped/64", "winter"),
    )
    assert len(fused) == 12
    assert {row[1] for row in fused} <= visible
    served.connection.execute("REVOKE SELECT ON chunk_embeddings FROM reader_of_part")
    with pytest.raises(errors.InsufficientPrivilege):
        asked(reader, "search_chunks(%s)", vector("hashing/64", "winter"))


def test_who_may_search_may_search_by_a_new_model(served: Several, reader: Connection) -> None:
    """The functions that are made for it have the rights of the one that chooses: a role that was given that one needs no more, and
    nobody else gets any."""
    served.connection.execute(
        "REVOKE EXECUTE ON FUNCTION search_chunks, search_chunks_1 FROM PUBLIC; "
        "GRANT EXECUTE ON FUNCTION search_chunks, search_chunks_1 TO reader_of_part"
    )
    served.register("flipped/32")
    model = served.model("flipped/32")
    assert asked(reader, "search_chunks(%s, 3, %s)", vector("flipped/32", "ship"), model.name) == []
    may = "SELECT has_function_privilege(%s, oid, 'EXECUTE') FROM pg_proc WHERE proname = %s"
    own = f"search_chunks_{model.number}"
    assert served.connection.execute(may, ("reader_of_part", own)).fetchone() == (True,)
    assert served.connection.execute(may, ("pg_monitor", own)).fetchone() == (False,)
    assert served.connection.execute(may, ("pg_monitor", "search_chunks")).fetchone() == (False,)


def test_several_models_are_fused_by_reciprocal_rank(served: Several) -> None:
    """A chunk's score is the sum of 1 / (60 + its rank) over the models that have it among their nearest 20; an intersection has
    those that all of them have there."""
    names, text = ["hashing/64", "flipped/64", "hashing/2100"], "planet market forest"
    vectors = [vector(name, text) for name in names]
    ranks = defaultdict[int, dict[str, int]](dict)
    for name, probe in zip(names, vectors, strict=True):
        for row in asked(served.connection, "search_chunks(%s, 20, %s)", probe, name):
            ranks[row[0]][name] = row[6]
    call = "search_chunks_multi(%s::vector[], %s, %s, 7)"
    for aggregation, least in (("union", 1), ("intersection", 3)):
        scores = {
            chunk: sum(1 / (60 + rank) for rank in of.values()) for chunk, of in ranks.items() if len(of) >= least
        }
        expected = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))[:7]
        rows = asked(served.connection, call, vectors, names, aggregation)
        assert [row[0] for row in rows] == expected
        assert np.allclose([row[4] for row in rows], [scores[chunk] for chunk in expected])
        assert [dict(zip(row[5], row[6], strict=True)) for row in rows] == [ranks[chunk] for chunk in expected]
        assert [row[8] for row in rows] == list(range(1, len(rows) + 1))
    for wrong, message in (
        ([vectors, names, "both"], "aggregation must be union or intersection, got both"),
        ([vectors[:2], names, "union"], "models named: 3, vectors given: 2"),
        ([vectors[:2], ["hashing/64"] * 2, "union"], "name each model once"),
    ):
        with pytest.raises(errors.DataException, match=message):
            asked(served.connection, call, *wrong)


def test_a_model_that_cannot_be_asked_is_refused_by_name(served: Several) -> None:
    """So is a vector that is not of its dimensions, one of a model that has ended, and no name where none is active."""
    connection = served.connection
    with pytest.raises(errors.DataException, match="the query vector has 3 dimensions, and hashing/64 has 64"):
        asked(connection, "search_chunks('[1,2,3]')")
    with pytest.raises(errors.UndefinedObject, match="no model of these tables is called nobody/12") as refused:
        asked(connection, "search_chunks('[1,2,3]', 5, 'nobody/12')")
    assert "the models that are searched: flipped/64, hashing/2100, hashing/64" in str(refused.value.diag.message_hint)
    with pytest.raises(errors.UndefinedObject, match="no model of these tables is called 64"):  # it may be two
        asked(connection, "search_chunks('[1,2,3]', 5, '64')")
    with connection.transaction():
        registry.end(connection, served.tables, served.model("hashing/2100"))
        served.remake()
    with pytest.raises(errors.UndefinedObject, match="hashing/2100 is no longer searched"):
        asked(connection, "search_chunks('[1,2,3]', 5, '2100')")
    drop_superseded(connection, str(served.tables.chunks))
    assert connection.execute("SELECT to_regproc('search_chunks_3')").fetchone() == (None,)
    connection.execute("UPDATE vecferry.model SET state = 'built'")
    served.remake()
    with pytest.raises(errors.UndefinedObject, match="no model is active"):
        asked(connection, "search_chunks('[1,2,3]')")


def test_a_threshold_is_the_models_own_and_an_empty_answer_says_so(served: Several) -> None:
    """Each model keeps back what is less similar than its own threshold, unless the caller gives another; a notice tells of the
    nearest where nothing is left."""
    registry.set_threshold(served.connection, served.model("hashing/64"), 0.9)
    served.remake()
    notices = list[str]()
    served.connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary or ""))
    for name, rows in (("hashing/64", 0), ("flipped/64", 5)):
        assert len(asked(served.connection, "search_chunks(%s, 5, %s)", vector(name, "a sea of words"), name)) == rows
    [notice] = notices
    assert notice.startswith("nothing is similar enough: the nearest chunk has a similarity of 0.")
    lower = "search_chunks(%s, 5, min_similarity => '-Infinity')"
    assert len(asked(served.connection, lower, vector("hashing/64", "a sea of words"))) == 5
    assert len(notices) == 1


def test_the_active_model_is_the_default(served: Several) -> None:
    """From the commit on, in connections that were open before too."""
    probe = vector("flipped/64", "bread")
    assert {row[5] for row in asked(served.connection, "search_chunks(%s)", probe)} == {"hashing/64"}
    with served.connection.transaction():
        registry.set_active(served.connection, served.tables, served.model("flipped/64"))
        served.remake()
    assert {row[5] for row in asked(served.connection, "search_chunks(%s)", probe)} == {"flipped/64"}


def test_a_function_of_the_users_is_never_replaced(served: Several) -> None:
    """One that has a name of ours, and is not ours, is refused by name."""
    served.connection.execute("CREATE FUNCTION search_chunks(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$")
    with pytest.raises(UsageError, match=r"search_chunks\(text\) is not vecferry's"):
        served.remake()


def test_names_of_any_kind_are_quoted(served: Several) -> None:
    """Names of models are values in the functions, whatever they hold."""
    connection = served.connection
    hostile = "flipped/64?x='; DROP TABLE documents; -- $vecferry % \\"
    place = registry.Place("public", "chunk_embeddings", "embedding_64")
    registry.register(connection, served.tables, hostile, open_embedder("flipped/64").space, place)
    served.remake()
    assert asked(connection, "search_chunks(%s, 5, %s)", vector("flipped/64", "ship"), hostile) == []
    with pytest.raises(errors.DataException, match="dimensions"):
        asked(connection, "search_chunks('[1]', 5, %s)", hostile)
    assert len(asked(connection, "search_chunks(%s, 9)", vector("hashing/64", "ship"))) == 9


def test_a_filter_without_metadata_is_refused(served: Several) -> None:
    """It would be passed over in silence."""
    bare = replace(
        served.tables,
        documents=replace(served.tables.documents, metadata=None, title=None),
        chunks=replace(served.tables.chunks, metadata=None),
    )
    with served.connection.transaction():
        functions.remake(served.connection, bare)
    probe = vector("hashing/64", "ship")
    assert asked(served.connection, "search_chunks(%s, 1)", probe)[0][2] is None
    with pytest.raises(errors.DataException, match="no metadata to filter by"):
        asked(served.connection, "search_chunks(%s, filter => '{}')", probe)
