"""``flows.client``: search and ingestion by several models, as an application calls them."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from flows import client as module
from flows.client import Client, as_json
from tasks.base.errors import NotFound, TransientError, UsageError
from tasks.embedders.registry import open_embedder
from tasks.runs import registry
from tasks.shadows.postgres.models import switch
from tasks.stores.postgres.connection import connect
from tests.helpers.flipped import FlippedEmbedder
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.several_models import Several

MODELS, ROWS = ("hashing/64", "flipped/64", "hashing/128"), 20


@pytest.fixture
def client(served: Several) -> Iterator[Client]:
    with served.client() as opened:
        yield opened


def vectors_in(served: Several) -> dict[tuple[str, str], np.ndarray]:
    """What the tables hold, by model and text of the chunk."""
    stored: dict[tuple[str, str], np.ndarray] = {}
    for model in registry.listed(served.connection, served.tables):
        rows = served.connection.execute(
            f"SELECT c.content, e.{model.column}::real[] FROM chunk_embeddings e JOIN document_chunks c ON c.id = e.chunk_id "
            "WHERE e.model_id = %s",
            (model.number,),
        )
        stored |= {(model.name, text): np.array(vector, np.float32) for text, vector in rows if vector}
    return stored


def test_a_text_is_embedded_by_the_model_that_is_searched(client: Client) -> None:
    """By the active one where none is named; a model may be called by less than its whole name where that is unique. Hits carry
    document, model, rank and similarity."""
    text = client.search("ship").hits[0].content
    for name, model in ((None, "hashing/64"), ("flipped/64", "flipped/64"), ("128", "hashing/128")):
        answer = client.search(text, name, top_k=3)
        assert (len(answer), [hit.rank for hit in answer], {hit.model for hit in answer}) == (3, [1, 2, 3], {model})
        assert (answer[0].content, round(answer[0].similarity, 4)) == (text, 1.0)
        assert answer.notes == []
    given = client.search(vector=open_embedder("hashing/64").embed([text]).whole[0].tolist())
    assert given.hits == client.search(text).hits
    assert as_json(given)["hits"][0]["models"] == [
        {"model": "hashing/64", "rank": 1, "similarity": given[0].similarity}
    ]


def test_one_text_is_embedded_once_in_a_space(served: Several) -> None:
    """However many registered models share the space."""
    space = open_embedder("flipped/64").space
    place = registry.Place("public", "chunk_embeddings", "embedding_64")
    registry.register(served.connection, served.tables, "flipped/64?most=900", space, place)
    served.remake()
    with served.client() as client:
        FlippedEmbedder.asked.clear()
        answer = client.search_multi_model("a ship", ["flipped/64", "flipped/64?most=900", "hashing/64"])
    assert FlippedEmbedder.asked == [["a ship"]]
    assert [one.model for one in answer.searched] == ["flipped/64", "flipped/64?most=900", "hashing/64"]
    assert answer.notes == ["flipped/64?most=900 finds nothing: it has a vector of no chunk that may be given"]


def test_a_shorter_vector_is_cut_from_the_longer_one(served: Several, provider: OpenAIServer) -> None:
    """One request for a text that is searched by a model and by the same one of fewer dimensions."""
    names = [f"openai/text-embedding-3-small?dimensions={n}" for n in (96, 1536)]
    served.register(*names)
    with served.client() as client:
        probes = client._models.probes([served.model(name) for name in names], "a ship", None)
    assert [call.inputs for call in provider.answered()].count(["a ship"]) == 1
    assert np.allclose(probes[0], probes[1][:96] / np.linalg.norm(probes[1][:96]), atol=1e-6)


def test_several_models_are_asked_with_a_vector_each(client: Client) -> None:
    """Union and intersection; each hit names the models that have it, with rank and similarity by each."""
    names = ["hashing/64", "hashing/128"]
    union = client.search_multi_model("violin garden winter", names, top_k=8)
    both = client.search_multi_model("violin garden winter", names, "intersection", top_k=8)
    assert (union.aggregation, both.aggregation) == ("union", "intersection")
    assert all([ranked.model for ranked in hit.models] == names for hit in both)
    for hit in union:
        assert hit.score == pytest.approx(sum(1 / (60 + ranked.rank) for ranked in hit.models))
    vectors = {name: open_embedder(name).embed(["violin garden winter"]).whole[0] for name in names}
    assert client.search_multi_model(vectors=vectors, top_k=8).hits == union.hits


def test_what_cannot_be_asked_is_refused_in_plain_words(client: Client) -> None:
    """The model, the vector or the number that is wrong is named."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"query": "x", "model_name": "nobody"}, "no model 'nobody' is registered"),
        ({"query": "x", "model_name": "64"}, "write the whole name"),
        ({"vector": [1.0, 2.0]}, "2 dimensions.*hashing/64 has 64"),
        ({"vector": [float("nan")] * 64}, "not a finite number"),
        ({"vector": [[1.0]]}, "a list of numbers"),
        ({}, "give either a text to search for, or its vectors"),
        ({"query": "x", "top_k": 0}, "top_k must be a whole number from 1 to 1,000"),
    ]
    for asked, message in wrong:
        with pytest.raises(UsageError, match=message):
            client.search(**asked)


def test_only_the_direction_of_a_vector_counts(client: Client) -> None:
    """However long or short it is, though PostgreSQL's sums would overflow or vanish; what has none is refused."""
    text = "candle mirror bridge"
    probe, expected = client.probe(text, "hashing/64"), client.search(text, "hashing/64", top_k=3)
    for factor in (3e38, 1e-40):
        hits = client.search(vector=probe.astype(np.float64) * factor, model_name="hashing/64", top_k=3)
        assert [hit.chunk_id for hit in hits] == [hit.chunk_id for hit in expected]
        assert [hit.similarity for hit in hits] == pytest.approx([hit.similarity for hit in expected], abs=1e-4)
    with pytest.raises(UsageError, match="the query vector is all zeros, which have no direction"):
        client.search(vector=[0.0] * 64, model_name="hashing/64")
    with pytest.raises(UsageError, match="not a finite number"):
        client.search(vector=[float("nan")] * 64, model_name="hashing/64")


def test_what_is_not_there_is_told_from_what_is_wrong(client: Client) -> None:
    """A document or a model that is not there raises NotFound."""
    for call in (
        lambda: client.document_embeddings(99_999),
        lambda: client.document_embeddings("no number"),
        lambda: client.update_document_embeddings(99_999),
        lambda: client.search("x", "nobody/12"),
    ):
        with pytest.raises(NotFound):
            call()


def test_a_model_of_another_space_is_not_asked(served: Several, client: Client) -> None:
    """Where the model that is here makes other vectors than those that are stored, no answer is better than a wrong one."""
    served.connection.execute("UPDATE vecferry.model SET space = 'hashing/64/000000000000' WHERE name = 'hashing/64'")
    with pytest.raises(UsageError, match="they are not comparable"):
        client.search("x")


def test_an_answer_that_a_threshold_has_emptied_says_so(served: Several, client: Client) -> None:
    """It names the model, its threshold and how near the nearest chunk is; a caller's own threshold goes before it."""
    registry.set_threshold(served.connection, served.model("hashing/64"), 0.99)
    served.remake()
    answer = client.search("words of nobody")
    assert len(answer) == 0
    [note] = answer.notes
    assert note.startswith(
        "hashing/64 finds nothing because of its threshold: the nearest chunk has a similarity of 0."
    )
    assert note.endswith("and the least is 0.990")
    assert len(client.search("words of nobody", min_similarity=-1)) == 5
    assert client.search("x", filter={"no": "such"}).notes == [
        "hashing/64 finds nothing: it has a vector of no chunk that may be given"
    ]


def test_a_document_is_written_whole(served: Several, client: Client) -> None:
    """Its chunks in their order, with the vectors of their texts by the model that is named, or the active one; metadata too."""
    content = "\n\n".join(f"Paragraph {n} speaks of {'many things ' * 30}and number {n}." for n in range(8))
    key = client.ingest_document("Numbers", content, "flipped/64", {"kind": "test"})
    rows = served.connection.execute(
        "SELECT chunk_index, content FROM document_chunks WHERE document_id = %s ORDER BY chunk_index", (key,)
    ).fetchall()
    assert [at for at, _ in rows] == list(range(len(rows)))
    assert "\n\n".join(text for _, text in rows) == content
    stored = vectors_in(served)
    for _, text in rows:
        assert np.allclose(stored["flipped/64", text], open_embedder("flipped/64").embed([text]).whole[0])
        assert ("hashing/64", text) not in stored
    assert served.connection.execute(
        "SELECT title, metadata->>'kind' FROM documents WHERE id = %s", (key,)
    ).fetchone() == (
        "Numbers",
        "test",
    )
    status = client.document_embeddings(key)
    assert (status.title, status.chunks) == ("Numbers", len(rows))
    assert {of.model: of.chunks for of in status.models} == {"hashing/64": 0, "flipped/64": len(rows), "hashing/128": 0}
    assert client.search(rows[1][1], "flipped/64")[0].document_id == key
    with pytest.raises(UsageError, match="no text"):
        client.ingest_document("Empty", "\n ")
    with pytest.raises(UsageError, match="PostgreSQL cannot store"):
        client.ingest_document("NUL", "a\0b")


def test_a_chunk_that_a_model_finds_too_long_is_parted(served: Several) -> None:
    """Each model's limit is kept to without anybody knowing it beforehand."""
    served.register("flipped/96?most=300")
    with served.client() as client:
        key = client.ingest_document("Long", "A sentence of a few words. " * 60, "flipped/96?most=300")
        status = client.document_embeddings(key)
    sizes = [
        n
        for (n,) in served.connection.execute(
            "SELECT length(content) FROM document_chunks WHERE document_id = %s", (key,)
        )
    ]
    assert max(sizes) <= 300
    assert status.chunks == len(sizes)
    assert next(of.chunks for of in status.models if of.model.startswith("flipped/96")) == len(sizes)


def test_one_document_gets_the_vectors_of_another_model(served: Several, client: Client) -> None:
    """Of all its chunks, those that the application inserted itself too; done again it changes nothing and makes nothing."""
    key = client.ingest_document("A", "Some text.\n\nMore of it.")
    served.connection.execute(
        "INSERT INTO document_chunks (document_id, chunk_index, content) VALUES (%s, 9, 'By hand')", (key,)
    )
    assert client.update_document_embeddings(key, "flipped/64") == 2
    stored = vectors_in(served)
    assert np.allclose(stored["flipped/64", "By hand"], open_embedder("flipped/64").embed(["By hand"]).whole[0])
    FlippedEmbedder.asked.clear()
    assert client.update_document_embeddings(key, "flipped/64") == 2
    assert FlippedEmbedder.asked == []


def test_an_update_replaces_chunks_and_vectors_at_once(served: Several, client: Client) -> None:
    """By every model that had vectors of the document; whoever searches meanwhile finds the old text or the new one, whole."""
    words = {state: f"unheard {state} wording" for state in ("first", "second")}
    key = client.ingest_document("Changing", words["first"], "hashing/128")
    client.update_document_embeddings(key, "flipped/64")
    seen, over = set[str](), threading.Event()

    def read() -> None:
        while not over.is_set():
            for model in ("hashing/128", "flipped/64"):
                [hit] = [hit for hit in client.search("unheard wording", model, top_k=20) if hit.document_id == key]
                seen.add(hit.content)

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(read)
        try:
            for turn in range(6):
                assert client.update_document(key, words["second" if turn % 2 == 0 else "first"], f"Turn {turn}") == 1
        finally:
            over.set()
        reading.result()
    assert seen <= set(words.values())
    stored = vectors_in(served)
    assert ("hashing/128", words["first"]) in stored
    assert ("flipped/64", words["first"]) in stored
    assert ("hashing/128", words["second"]) not in stored
    assert client.document_embeddings(key).title == "Turn 5"


def test_nothing_is_bought_twice(served: Several, provider: OpenAIServer) -> None:
    """A text that any document had before is not paid for again, nor is one whose document could not be written."""
    name = "openai/text-embedding-3-small?dimensions=64"
    served.register(name)
    with served.client() as client:
        client.ingest_document("One", "A text that costs money.", name)
        bought = _bought(provider)
        assert bought >= 1
        client.ingest_document("Two", "A text that costs money.", name)
        served.connection.execute("ALTER TABLE documents ADD CONSTRAINT never CHECK (title <> 'Never')")
        with pytest.raises(UsageError, match="violates check constraint"):
            client.ingest_document("Never", "Another text, that is paid for.", name)
        client.ingest_document("Three", "Another text, that is paid for.", name)
        assert _bought(provider) == bought + 1
    assert served.connection.execute("SELECT count(*) FROM documents").fetchone() == (ROWS + 3,)


def _bought(provider: OpenAIServer) -> int:
    return sum(len(call.inputs) for call in provider.answered())


@pytest.mark.parametrize("searches", [40, pytest.param(10_000, marks=[pytest.mark.whole, pytest.mark.timeout(1_500)])])
def test_a_search_during_a_switch_is_answered_by_one_model(served: Several, client: Client, searches: int) -> None:
    """While `activate` goes back and forth, nobody fails, and every answer is wholly that of the model it names: of the client, and
    of SQL that asks the active model."""
    text, over = "candle mirror bridge", threading.Event()
    names = ("flipped/64", "hashing/64")
    expected = {name: client.search(text, name).hits for name in names}
    probe = json.dumps(open_embedder("hashing/64").embed([text]).whole[0].tolist())
    answers = {
        name: served.connection.execute("SELECT * FROM search_chunks(%s, 5, %s)", (probe, name)).fetchall()
        for name in names
    }

    counts = Counter[str]()

    def by_client() -> None:
        while not over.is_set():
            answer = client.search(text)
            assert answer.hits == expected[answer[0].model]
            counts[answer[0].model] += 1

    def by_sql() -> None:
        with connect(os.environ["DATABASE_URL"]) as connection:
            while not over.is_set():
                rows = connection.execute("SELECT * FROM search_chunks(%s, 5)", (probe,)).fetchall()
                assert rows == answers[rows[0][5]]
                counts[rows[0][5]] += 1

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(by_client), pool.submit(by_client), pool.submit(by_sql)]
        switches = 0
        try:
            while not any(reader.done() for reader in readers) and (counts.total() < searches or switches < 6):
                switch.activate(served.connection, served.tables, names[switches % 2], force=True)
                switches += 1
        finally:
            over.set()
        for reader in readers:
            reader.result()
    assert set(counts) == set(names)


def test_a_database_that_comes_back_is_used_again(served: Several, client: Client) -> None:
    """Connections that the server has ended are replaced; nobody who asks afterwards notices."""
    assert len(client.search("ship")) == 5
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vecferry client'"
    assert served.connection.execute(ended).fetchall()
    assert len(client.search("ship")) == 5
    connections = [client._pool.connection() for _ in range(4)]
    for one in connections:
        one.__enter__()
    with pytest.raises(TransientError, match="within 2 s"):
        client.search("ship")
    for one in connections:
        one.__exit__(None, None, None)


def test_the_functions_of_the_guide_work_on_one_client(served: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's calls, with its own names of parameters."""
    key = module.ingest_document(title="My Document", content="Content here", embedding_model="hashing/128")
    assert module.update_document_embeddings(document_id=key, model_name="hashing/64") == 1
    assert module.search(query="Content here", model_name="hashing/128")[0].document_id == key
    fused = module.search_multi_model(
        query="Content here", model_names=["hashing/64", "hashing/128"], aggregation="union"
    )
    assert fused[0].document_id == key
    assert module.update_document(key, "Other content") == 1
    assert module.client() is module.client()
    module._clients.pop("DATABASE_URL").close()


def test_it_is_imported_without_prefect() -> None:
    """An application that only searches does not wait for it."""
    code = "import sys, flows.client; print('prefect' in sys.modules, 'torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False False\n"
    )
