"""Collections of Qdrant go through the whole life of a migration, in each of the three places."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from flows.catch_up import catch_up
from tasks.planning import registry as planning
from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import Migration, Rows, drive, tables
from tests.helpers.qdrant import Qdrant
from tests.helpers.qdrant_target import (
    ADDED,
    ALIAS,
    BESIDE,
    COLLECTION,
    COPY,
    KINDS,
    Docs,
    Kind,
    QdrantForm,
    migrate_qdrant,
    qdrant_target,
)
from tests.helpers.sampling import sampled

__all__ = ["qdrant_target"]
pytestmark = pytest.mark.usefixtures("prefect", "qdrant_target")
GATES = {"max_quarantined": 10}


def name(n: int) -> int | str:
    """Every third id is a UUID."""
    return str(UUID(int=n)) if n % 3 == 0 else n


def texts(numbers: range, what: str = "says of topic") -> dict[int | str, str | None]:
    return {name(n): f"what {n} {what} {n % 7}" for n in numbers}


@pytest.fixture
def docs(qdrant: Qdrant, connection: Connection) -> Iterator[Callable[[str], Docs]]:
    client = qdrant.client()

    def create(vector: str) -> Docs:
        docs = Docs(client, vector)
        docs.create(texts(range(1, 61)) | {name(99): None})
        return docs

    yield create
    client.close()


def migration_of(kind: Kind, url: str, docs: Docs, connection: Connection) -> Migration:
    """The flow over that collection, and the application's changes in its life."""
    steps, client, last = iter(range(1, 50)), docs.client, list[Rows]()

    def change() -> None:
        n = next(steps)
        docs.say({name(100 + n): f"new {n}", name(n): f"changed {n}", name(20 + n): None})
        client.set_payload(COLLECTION, {"seen": n}, [name(30 + n)], wait=True)
        client.delete(COLLECTION, [name(40 + n)], wait=True)

    def alias(of: str) -> str | None:
        return {a.alias_name: a.collection_name for a in client.get_aliases().aliases}.get(of)

    def active() -> bool:
        if kind == "named_vector":
            entry: dict[str, Any] = (client.get_collection(COLLECTION).config.metadata or {}).get(
                f"vecferry:{ADDED}"
            ) or {}
            return bool(entry.get("active"))
        return alias(ALIAS if kind == "new_collection" else COLLECTION) == BESIDE

    def served() -> Rows | None:
        if not active():
            return None
        return docs.rows(COLLECTION, ADDED) if kind == "named_vector" else docs.rows(BESIDE, docs.vector)

    def expected() -> Rows:
        old = COPY if kind == "replaced_collection" and active() else COLLECTION
        if client.collection_exists(old):  # else it was contracted, and what it said last is what is there
            last[:] = [docs.expected(old)]
        return last[0]

    def writes() -> list[str]:
        aliases = [f"{a.alias_name}={a.collection_name}" for a in client.get_aliases().aliases]
        return [*tables(connection), *sorted(c.name for c in client.get_collections().collections), *sorted(aliases)]

    form = QdrantForm(url=url, strategy=kind, vector=docs.vector)
    given = {"url": url, "strategy": kind, "vector": docs.vector, "batch_rows": 20, "gates": GATES}
    followed = kind != "replaced_collection"
    return Migration(
        run=lambda run_id: migrate_qdrant(**given, run_id=run_id),
        plan=lambda: planning.make_plan(connection, form.request(), "life"),
        expected=expected,
        served=served,
        change=change,
        writes=writes,
        gates=GATES,
        catch_up=(lambda run_id: catch_up(run_id=run_id)) if followed else None,
        lives_on=kind == "named_vector",
    )


@pytest.mark.parametrize(("kind", "vector"), sampled(product(KINDS, ["", "old"]), ("named_vector", "old")))
def test_its_whole_life(
    kind: Kind, vector: str, qdrant: Qdrant, docs: Callable[[str], Docs], connection: Connection
) -> None:
    """Plan, run, rollback, run, cutover, catch-up, rollback, cutover, contract, with changes in between."""
    drive(migration_of(kind, qdrant.url, docs(vector), connection))
