"""What holds of the three places in Qdrant, stage by stage."""

from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from tasks.cutover import contract, cutover, rollback
from tasks.runs.run import Run
from tasks.shadows.registry import shadow_of
from tasks.stores.postgres.connection import Connection
from tasks.stores.qdrant.client import close_directory, created
from tests.helpers.qdrant import Qdrant, client
from tests.helpers.qdrant_run import begun, followed, killed_before_the_ledger, ready, switched, taken_for_verified
from tests.helpers.qdrant_target import (
    ADDED,
    BESIDE,
    CARRIED,
    COLLECTION,
    COPY,
    KEY,
    KINDS,
    OLD_NAME,
    Docs,
    Kind,
    docs,
    made,
    qdrant_target,
)

__all__ = ["client", "docs", "qdrant_target"]
pytestmark = pytest.mark.usefixtures("qdrant_target", "connection")


@pytest.mark.parametrize("kind", KINDS)
def test_from_snapshot_to_switch(kind: Kind, qdrant: Qdrant, docs: Docs) -> None:
    """Every text has the new model's vector, and every point its payload; the one that says nothing is set aside and kept."""
    run = begun(qdrant.url, kind, OLD_NAME)
    there, vector = (COLLECTION, ADDED) if kind == "named_vector" else (BESIDE, OLD_NAME)
    assert docs.rows(there, vector) == docs.expected()
    assert docs.client.count(there).count == 31
    notes = shadow_of(run, run.plan.targets[0]).notes()
    assert notes[0] == (
        f"31 points in {there}, which is green: 30 points with the new vector, 1 point without a text, 0 points quarantined for another "
        "reason"
    )
    assert not shadow_of(run, run.plan.targets[0]).active()
    assert switched(run)
    assert shadow_of(run, run.plan.targets[0]).active()


@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_is_followed(kind: Kind, qdrant: Qdrant, docs: Docs) -> None:
    """A new point, another text, another payload, a deleted point and one that was upserted whole come along."""
    run = begun(qdrant.url, kind, OLD_NAME)
    docs.say({101: "a new one", 2: "another text", 3: None, 4: docs_text(4)})
    docs.client.set_payload(COLLECTION, {"seen": True}, [5], wait=True)
    docs.client.delete(COLLECTION, [6], wait=True)
    total = followed(run).total
    assert (total.missing.count, total.orphaned.count) == ((3, 0) if kind == "named_vector" else (1, 1))
    assert new_rows(docs, kind) == docs.expected()
    assert not followed(run).total.touched


@pytest.mark.parametrize("kind", KINDS)
def test_a_stale_vector_is_made_anew(kind: Kind, qdrant: Qdrant, docs: Docs) -> None:
    """``set_payload`` leaves the vector of the text that was: it is told by what was embedded."""
    run = begun(qdrant.url, kind, OLD_NAME)
    docs.client.set_payload(COLLECTION, {KEY: "says something else"}, [7], wait=True)
    shadow = shadow_of(run, run.plan.targets[0])
    assert shadow.compare().stale.ids == ("7",)
    assert followed(run).total.stale.ids == ("7",)
    assert new_rows(docs, kind)["7"][1] == made("says something else")
    assert not shadow.compare().touched


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_between_the_store_and_the_ledger(
    kind: Kind, qdrant: Qdrant, docs: Docs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is switched and the ledger does not know: the next cutover asks the store, and switches nothing twice."""
    run = begun(qdrant.url, kind, OLD_NAME)
    ready(run)
    with killed_before_the_ledger(monkeypatch):
        cutover(run)
    expected = docs.expected(COLLECTION if kind != "replaced_collection" else COPY)
    assert active(run)
    assert switched(run) == []
    assert new_rows(docs, kind) == expected
    rollback(run)
    assert not active(run)


def docs_text(n: int) -> str:
    return f"what {n} says"


def new_rows(docs: Docs, kind: Kind) -> dict[str, Any]:
    return docs.rows(COLLECTION, ADDED) if kind == "named_vector" else docs.rows(BESIDE, OLD_NAME)


def active(run: Run) -> bool:
    shadow: Any = shadow_of(run, run.plan.targets[0])
    return bool(shadow.active())


def test_rows_of_a_lookup_without_a_point_are_told(qdrant: Qdrant, docs: Docs, connection: Connection) -> None:
    """The document is the lookup's, a change of it is followed, and what no point names is named."""
    connection.execute("CREATE TABLE captions (topic integer, caption text)")
    connection.execute("INSERT INTO captions SELECT n, 'caption ' || n FROM generate_series(0, 31) n WHERE n <> 2")
    lookup = {"key": "topic", "table": "captions", "match": "topic", "column": "caption", "database": "DATABASE_URL"}
    run = begun(qdrant.url, "named_vector", OLD_NAME, lookup=lookup)
    assert {i: vector for i, (_, vector) in new_rows(docs, "named_vector").items()} == {
        str(n if n < 31 else 99): made(f"caption {n - 1}") for n in range(1, 32) if n != 3
    }
    assert shadow_of(run, run.plan.targets[0]).notes()[1:] == ["1 row of captions has no point: '31'"]
    connection.execute("UPDATE captions SET caption = 'another' WHERE topic = 4")
    connection.execute("INSERT INTO captions VALUES (2, 'a late one')")
    total = followed(run).total
    assert (total.missing.ids, total.stale.ids) == (("3",), ("5",))
    rows = new_rows(docs, "named_vector")
    assert (rows["3"][1], rows["5"][1]) == (made("a late one"), made("another"))


def test_every_document_is_looked_at_anew_when_that_is_asked_for(qdrant: Qdrant, docs: Docs) -> None:
    """A vector that was spoilt behind the run's back comes right again, and the others are not written."""
    run = begun(qdrant.url, "named_vector", OLD_NAME)
    docs.client.update_vectors(COLLECTION, [models.PointVectors(id=9, vector={ADDED: [1.0] * 64})], wait=True)
    assert not followed(run).total.touched
    shadow_of(run, run.plan.targets[0]).reread()
    assert followed(run).total.stale.ids == ("9",)
    assert new_rows(docs, "named_vector") == docs.expected()


@pytest.mark.parametrize("vector", ["", OLD_NAME])
def test_contract_drops_the_old_vector_where_it_has_a_name(vector: str, qdrant: Qdrant, client: QdrantClient) -> None:
    """Qdrant drops no vector without one, and the contract says so."""
    docs = Docs(client, vector)
    docs.create({n: docs_text(n) for n in range(1, 6)})
    run = taken_for_verified(begun(qdrant.url, "named_vector", vector))
    cutover(run)
    lines = contract(run, 0)
    assert lines == (
        ["dropped vector old of docs"]
        if vector
        else ["the unnamed vector of docs stays: Qdrant drops no vector without a name"]
    )
    assert set(client.get_collection(COLLECTION).config.params.vectors) == ({ADDED, CARRIED} if vector else {"", ADDED})
    docs.client.set_payload(COLLECTION, {KEY: "changed after the contract"}, [1], wait=True)
    assert followed(run).total.stale.ids == ("1",)


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_directory_of_local_mode(kind: Kind, tmp_path: Path) -> None:
    """The same without a server."""
    path = str(tmp_path / "local")
    docs = Docs(created(path).client, OLD_NAME)
    docs.create({n: docs_text(n) for n in range(1, 31)} | {99: None})
    run = begun("", kind, OLD_NAME, path=path)
    docs.say({101: "a new one", 3: None})
    docs.client.set_payload(COLLECTION, {KEY: "says something else"}, [7], wait=True)
    docs.client.delete(COLLECTION, [6], wait=True)
    expected = docs.expected()
    assert switched(run)
    assert new_rows(docs, kind) == expected
    assert rollback(run)
    assert not active(run)
    assert switched(run)
    assert contract(run, 0)
    assert new_rows(docs, kind) == expected
    close_directory(path)
