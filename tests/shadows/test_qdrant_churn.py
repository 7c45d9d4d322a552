"""The application writes all the time, from before the snapshot until after the switch: nothing is lost, stale or brought back."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from qdrant_client import QdrantClient

from tasks.cutover import cutover
from tests.helpers.qdrant import Qdrant
from tests.helpers.qdrant_run import begun, followed, taken_for_verified
from tests.helpers.qdrant_target import ADDED, BESIDE, COLLECTION, KEY, Docs, qdrant_target
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


def filled(client: QdrantClient) -> Docs:
    docs = Docs(client)
    docs.create({n: f"what {n} says" for n in range(1, POINTS + 1)})
    return docs
