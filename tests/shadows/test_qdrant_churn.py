"""The application writes all the time, from before the snapshot until after the switch: nothing is lost, stale or brought back."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from qdrant_client import QdrantClient, models

from tasks.cutover import cutover, rollback
from tasks.shadows.qdrant import guards
from tasks.shadows.qdrant.beside import BesideShadow
from tasks.shadows.qdrant.known import Notes
from tasks.shadows.registry import shadow_of
from tests.helpers.qdrant import Qdrant
from tests.helpers.qdrant_run import begun, followed, killed_when, ready, taken_for_verified
from tests.helpers.qdrant_target import ADDED, BESIDE, COLLECTION, KEY, Docs, Kind, new_vector, qdrant_target
from tests.helpers.sampling import sampled

__all__ = ["qdrant_target"]
pytestmark = pytest.mark.usefixtures("qdrant_target", "connection")
POINTS = 80


@contextmanager
def writing(docs: Docs) -> Iterator[set[int]]:
    """While the body runs: points are added, upserted whole, given other payloads, and deleted for good. Yields the deleted."""
    deleted, done, errors = set[int](), threading.Event(), list[BaseException]()
    chance, numbers = random.Random(7), iter(range(1_000, 100_000))

    def write() -> None:
        try:
            while not done.is_set():
                n = chance.randrange(1, POINTS)
                match chance.randrange(5):
                    case 0:
                        docs.say({next(numbers): f"added {n}"})
                    case 1 if n not in deleted:
                        docs.say({n: f"upserted {next(numbers)}"})
                    case 2 if n not in deleted:
                        docs.client.set_payload(COLLECTION, {KEY: f"changed {next(numbers)}"}, [n], wait=True)
                    case 3 if n not in deleted:
                        docs.client.set_payload(COLLECTION, {"seen": next(numbers)}, [n], wait=True)
                    case 4 if len(deleted) < POINTS // 4:
                        deleted.add(n)
                        docs.client.delete(COLLECTION, [n], wait=True)
                time.sleep(0.005)
        except BaseException as error:
            errors.append(error)
            raise

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield deleted
    finally:
        done.set()
        thread.join()
    assert not errors


@pytest.mark.parametrize("version", sampled(["1.19.0", "1.16.3"], "1.19.0"))
def test_a_new_collection(version: str, qdrant: Qdrant) -> None:
    """By servers with conditional writes and by those without."""
    qdrant.server.restart(version)
    client = qdrant.client()
    docs = filled(client)
    with writing(docs) as deleted:
        run = taken_for_verified(begun(qdrant.url, "new_collection"))
        cutover(run)
    followed(run)
    assert not followed(run).total.touched
    rows = docs.rows(BESIDE, "")
    assert rows == docs.expected()
    assert not deleted & set(map(int, rows))
    client.close()


def test_a_named_vector(qdrant: Qdrant) -> None:
    """Beside an unnamed one, which every upsert of a whole point drops it from."""
    client = qdrant.client()
    docs = filled(client)
    with writing(docs) as deleted:
        run = taken_for_verified(begun(qdrant.url, "named_vector"))
        cutover(run)
    followed(run)
    assert not followed(run).total.touched
    rows = docs.rows(COLLECTION, ADDED)
    assert rows == docs.expected()
    assert not deleted & {int(i) for i in docs.expected()}
    client.close()


@pytest.mark.parametrize("kind", ["named_vector", "new_collection"])
def test_a_sample_is_of_points_that_nobody_has_changed_since(kind: Kind, qdrant: Qdrant) -> None:
    """A point whose text changed since its vector was made proves nothing about the model: verification leaves it out."""
    client = qdrant.client()
    filled(client)
    run = taken_for_verified(begun(qdrant.url, kind))
    cutover(run)
    changed = {str(n) for n in range(1, POINTS, 2)}
    holder = COLLECTION if kind == "named_vector" else BESIDE
    client.set_payload(holder, {KEY: "something else by now"}, [int(n) for n in changed], wait=True)
    with shadow_of(run, run.plan.targets[0]).made() as made:
        drawn = {
            name: [i for b in made.sample(2 * POINTS, settled=name) for i in b["id"].to_pylist()]
            for name in (False, True)
        }
    assert set(drawn[False]) == {str(n) for n in range(1, POINTS + 1)}
    assert set(drawn[True]) == set(drawn[False]) - changed
    client.close()


def test_a_point_that_is_deleted_after_a_rollback_does_not_come_back(qdrant: Qdrant) -> None:
    """The application had changed it in the new collection, and deletes it from the old one, which is the truth again: the next switch
    finds it in neither. What it had added to the new one stays."""
    client = qdrant.client()
    docs = filled(client)
    run = taken_for_verified(begun(qdrant.url, "new_collection"))
    cutover(run)
    client.set_payload(BESIDE, {"seen": True}, [7, 8], wait=True)
    client.upsert(BESIDE, [models.PointStruct(id=900, vector=new_vector("added"), payload={KEY: "added"})], wait=True)
    rollback(run)
    client.delete(COLLECTION, [7], wait=True)
    followed(run)
    cutover(taken_for_verified(run))
    followed(run)
    there = docs.rows(BESIDE, "")
    assert "7" not in there
    assert there["8"][0]["seen"]
    assert "900" in there
    client.close()


def test_what_is_written_while_a_second_switch_is_verified_is_brought(
    qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application had changed points in the new collection and went back to the old one: what it writes there between the last pass
    and the switch is newer. What it writes to the new one after the switch is newer still."""
    client = qdrant.client()
    docs = filled(client)
    run = taken_for_verified(begun(qdrant.url, "new_collection"))
    cutover(run)
    for n in (3, 4, 5, 6, 900):
        point = models.PointStruct(id=n, vector=new_vector("there"), payload={KEY: f"written there {n}"})
        client.upsert(BESIDE, [point], wait=True)
    rollback(run)
    followed(run)
    docs.say({3: "written here, later", 5: "written here", 900: "made here, later"})
    client.delete(COLLECTION, [4], wait=True)
    with monkeypatch.context() as patched:  # the pass after the switch is left to the next catching up
        patched.setattr(BesideShadow, "settle", lambda self: None)
        cutover(taken_for_verified(run))
    point = models.PointStruct(id=5, vector=new_vector("last"), payload={KEY: "written there last"})
    client.upsert(BESIDE, [point], wait=True)
    followed(run)
    texts = {name: payload[KEY] for name, (payload, _) in docs.rows(BESIDE, "").items()}
    assert texts["3"] == "written here, later"
    assert "4" not in texts
    assert (texts["5"], texts["6"]) == ("written there last", "written there 6")
    assert texts["900"] == "made here, later"
    client.close()


def test_a_vector_of_what_a_point_says_no_more_is_removed_after_a_rollback(qdrant: Qdrant) -> None:
    """Of a named vector: who made it, the application or the run, does not count once nobody uses it; while it is used, the
    application's own stays."""
    client = qdrant.client()
    docs = filled(client)
    run = taken_for_verified(begun(qdrant.url, "named_vector"))
    cutover(run)
    own = {"": [1.0] * 32, ADDED: new_vector("its own")}
    client.upsert(
        COLLECTION, [models.PointStruct(id=n, vector=own, payload={KEY: "its own"}) for n in (501, 502)], wait=True
    )
    client.delete_payload(COLLECTION, [KEY], [501], wait=True)
    followed(run)
    assert "501" in docs.rows(COLLECTION, ADDED)
    rollback(run)
    client.delete_payload(COLLECTION, [KEY], [502], wait=True)
    followed(run)
    assert not {"501", "502"} & docs.rows(COLLECTION, ADDED).keys()
    client.close()


def test_points_without_a_vector_are_the_applications_own_after_a_rollback(qdrant: Qdrant) -> None:
    """What it put into the new collection without one, or took one from, does not stop the next verification and switch."""
    client = qdrant.client()
    filled(client)
    run = taken_for_verified(begun(qdrant.url, "new_collection"))
    cutover(run)
    client.upsert(BESIDE, [models.PointStruct(id=900, vector={}, payload={"topic": 1})], wait=True)
    client.set_payload(BESIDE, {KEY: ""}, [7], wait=True)
    client.delete_vectors(BESIDE, [""], [7], wait=True)
    rollback(run)
    ready(run)
    assert cutover(run)
    client.close()


def test_a_kill_while_points_are_deleted(qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A point that is deleted from the old collection after the switch, by a pass that is killed then, and made anew there is brought
    anew: it is not taken for one that the application deleted from the new collection."""
    client = qdrant.client()
    docs = filled(client)
    run = taken_for_verified(begun(qdrant.url, "new_collection"))
    cutover(run)
    client.delete(COLLECTION, [7, 8], wait=True)
    with killed_when(monkeypatch, Notes, "forget"):
        followed(run)
    assert not {"7", "8"} & docs.rows(BESIDE, "").keys()
    docs.say({7: "another of that number"})
    followed(run)
    assert docs.rows(BESIDE, "")["7"][0][KEY] == "another of that number"
    assert "8" not in docs.rows(BESIDE, "")
    client.close()


def test_a_kill_before_points_are_deleted(qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next pass still knows that the points are the run's, and deletes them."""
    client = qdrant.client()
    docs = filled(client)
    run = taken_for_verified(begun(qdrant.url, "new_collection"))
    cutover(run)
    client.delete(COLLECTION, [7], wait=True)
    with killed_when(monkeypatch, guards, "delete_where"):
        followed(run)
    assert "7" in docs.rows(BESIDE, "")
    followed(run)
    assert docs.rows(BESIDE, "") == docs.expected()
    client.close()


def filled(client: QdrantClient) -> Docs:
    docs = Docs(client)
    docs.create({n: f"what {n} says" for n in range(1, POINTS + 1)})
    return docs
