"""The switch in Qdrant: nothing of anybody's is overwritten, before it, in the gap, and after."""

import threading
import time
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tasks.base.errors import UsageError, VerificationRefused
from tasks.cutover import contract, cutover, rollback
from tasks.runs.run import Run
from tasks.shadows.qdrant import aliases
from tasks.shadows.qdrant.beside import BesideShadow
from tasks.shadows.qdrant.replaced_collection import ReplacedCollectionShadow
from tests.helpers.qdrant import Qdrant, client
from tests.helpers.qdrant_run import Killed, begun, followed, killed_before_the_ledger, taken_for_verified
from tests.helpers.qdrant_target import (
    ADDED,
    ALIAS,
    BESIDE,
    COLLECTION,
    COPY,
    KEY,
    Docs,
    made,
    new_vector,
    old_vector,
    qdrant_target,
)

__all__ = ["client", "qdrant_target"]
pytestmark = pytest.mark.usefixtures("qdrant_target", "connection")


@pytest.fixture
def docs(client: QdrantClient) -> Docs:
    """20 points with texts, of a vector without a name."""
    created = Docs(client)
    created.create({n: f"what {n} says" for n in range(1, 21)})
    return created


def ready(qdrant: Qdrant, kind: str) -> Run:
    return taken_for_verified(begun(qdrant.url, kind))


def pointed_to(client: QdrantClient, alias: str) -> str | None:
    return {a.alias_name: a.collection_name for a in client.get_aliases().aliases}.get(alias)


def point_alias(client: QdrantClient, alias: str, collection: str) -> None:
    client.update_collection_aliases(
        [models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))]
    )


def others(client: QdrantClient) -> str:
    """A collection of somebody else's."""
    client.create_collection("others", models.VectorParams(size=4, distance=models.Distance.COSINE))
    return "others"


def write_new(client: QdrantClient, texts: dict[int, str]) -> None:
    """What the application writes into the new collection after the switch: with the new model's vectors."""
    points = [models.PointStruct(id=n, vector=new_vector(text), payload={KEY: text}) for n, text in texts.items()]
    client.upsert(BESIDE, points, wait=True)


def test_an_alias_that_points_elsewhere_is_not_moved(qdrant: Qdrant, docs: Docs) -> None:
    """Neither by the switch, nor by the way back, nor is anything dropped by the contract."""
    run, client = ready(qdrant, "new_collection"), docs.client
    point_alias(client, ALIAS, others(client))
    with pytest.raises(
        VerificationRefused, match=rf"alias {ALIAS} points to others and did not exist when run r was planned"
    ):
        cutover(run)
    client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ALIAS))])
    assert ALIAS in cutover(run)[0]
    point_alias(client, ALIAS, "others")
    with pytest.raises(UsageError, match=rf"alias {ALIAS} no longer points to {BESIDE} \(it points to others\)"):
        rollback(run, force=True)
    with pytest.raises(UsageError, match=rf"alias {ALIAS} no longer points .* so {COLLECTION} was not dropped"):
        contract(run, 0)
    assert pointed_to(client, ALIAS) == "others"
    assert client.collection_exists(COLLECTION)


def test_an_alias_of_the_old_collection_moves_and_comes_back(qdrant: Qdrant, docs: Docs) -> None:
    """The application that opens it has to change nothing but its model."""
    point_alias(docs.client, ALIAS, COLLECTION)
    run = ready(qdrant, "new_collection")
    assert cutover(run)[0].startswith(f"alias {ALIAS} now points to {BESIDE}: in the application, make the vectors")
    assert pointed_to(docs.client, ALIAS) == BESIDE
    assert f"alias {ALIAS} points to {COLLECTION} again" in rollback(run)[0]
    assert pointed_to(docs.client, ALIAS) == COLLECTION


@pytest.mark.parametrize("version", ["1.19.0", "1.16.3"])
def test_what_changes_between_the_last_pass_and_the_alias_is_brought_after_it(
    version: str, qdrant: Qdrant, docs: Docs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New, changed and deleted points of the gap reach the new collection, and what the application wrote into that by then is
    neither overwritten nor brought back; on servers without conditional writes too."""
    qdrant.server.restart(version)
    run, client = ready(qdrant, "new_collection"), docs.client
    change = aliases.change

    def gap(*arguments: Any) -> None:
        docs.say({101: "new in the gap", 102: "new on both sides", 2: "changed in the gap", 3: "changed on both sides"})
        docs.say({5: "deleted there, changed here"})
        client.delete(COLLECTION, [4, 6], wait=True)
        change(*arguments)
        write_new(client, {102: "the application's", 3: "the application's too", 6: "changed there, deleted here"})
        client.delete(BESIDE, [5, 7], wait=True)

    monkeypatch.setattr(aliases, "change", gap)
    cutover(run)
    texts = {int(i): (payload[KEY], vector) for i, (payload, vector) in docs.rows(BESIDE, "").items()}
    wanted = {n: f"what {n} says" for n in (1, *range(8, 21))} | {101: "new in the gap", 2: "changed in the gap"}
    wanted |= {102: "the application's", 3: "the application's too", 6: "changed there, deleted here"}
    assert texts == {n: (text, made(text)) for n, text in wanted.items()}
    monkeypatch.undo()
    last = followed(run)
    assert not last.total.touched
    assert {"3", "5", "6", "7", "102"} <= {*last.last.edited.ids, *last.last.added.ids}


def test_after_a_rollback_the_old_collection_is_the_truth_again(qdrant: Qdrant, docs: Docs) -> None:
    """What the application wrote into the new one stays there, save where the old one has something newer."""
    run, client = ready(qdrant, "new_collection"), docs.client
    cutover(run)
    write_new(client, {3: "written there", 4: "written there too", 201: "added there"})
    client.delete(BESIDE, [5], wait=True)
    assert "what was written to it since the switch is not in docs" in rollback(run)[0]
    docs.say({4: "written here, later"})
    followed(run)
    cutover(taken_for_verified(run))
    texts = {int(i): payload[KEY] for i, (payload, _) in docs.rows(BESIDE, "").items()}
    assert [texts[n] for n in (3, 4, 5, 201)] == ["written there", "written here, later", "what 5 says", "added there"]


def test_a_kill_after_the_alias_call_and_then_a_rollback(
    qdrant: Qdrant, docs: Docs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger says that nothing was switched, the store that it was: the alias goes back, and nothing is dropped."""
    run = ready(qdrant, "new_collection")
    with killed_before_the_ledger(monkeypatch):
        cutover(run)
    assert pointed_to(docs.client, ALIAS) == BESIDE
    rollback(run)
    assert pointed_to(docs.client, ALIAS) is None
    assert docs.client.count(COLLECTION).count == docs.client.count(BESIDE).count == 20


def test_contract_drops_the_old_collection_and_nothing_that_is_still_needed(qdrant: Qdrant, docs: Docs) -> None:
    """It refuses while another alias points to it, or it says what the new one does not yet."""
    run, client = ready(qdrant, "new_collection"), docs.client
    cutover(run)
    point_alias(client, "another", COLLECTION)
    with pytest.raises(UsageError, match=f"alias another points to {COLLECTION}"):
        contract(run, 0)
    client.update_collection_aliases(
        [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="another"))]
    )
    docs.say({301: "written by its own name"})
    with pytest.raises(
        VerificationRefused, match=r"1 point of docs changed and is not in docs_64 yet: vecferry catch-up r"
    ):
        contract(run, 0)
    followed(run)
    assert contract(run, 0) == [f"dropped collection {COLLECTION}"]
    assert not client.collection_exists(COLLECTION)
    assert len(docs.rows(ALIAS, "")) == 21


def test_most_of_what_people_use_is_not_deleted_by_catching_up(qdrant: Qdrant, docs: Docs) -> None:
    """The old collection is emptied, as by somebody who clears up before the contract: the new one keeps its points."""
    run, client = ready(qdrant, "new_collection"), docs.client
    cutover(run)
    client.delete(COLLECTION, list(range(1, 20)), wait=True)
    with pytest.raises(
        VerificationRefused, match=r"docs_64 holds 20 vectors and docs only 1 point: .* nothing was touched"
    ):
        followed(run)
    client.delete_collection(COLLECTION)
    with pytest.raises(UsageError, match="docs is not there any more, so docs_64 cannot be compared with it"):
        followed(run)
    assert client.count(BESIDE).count == 20


def test_the_gap_in_which_a_name_changes_hands_is_short(qdrant: Qdrant, docs: Docs) -> None:
    """A reader who asks all the time gets the old points, then for a moment nothing, then the new ones; never anything else."""
    run, answers, done = ready(qdrant, "replaced_collection"), list[tuple[float, int]](), threading.Event()

    def read() -> None:
        client = qdrant.client()
        while not done.is_set():
            started = time.perf_counter()
            try:
                answers.append((started, len(_vector(client, COLLECTION, 1))))
            except UnexpectedResponse as error:
                answers.append((started, -(error.status_code or 0)))
        client.close()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert f"{COLLECTION} is an alias of {BESIDE} now" in cutover(run)[0]
        time.sleep(0.2)
    finally:
        done.set()
        reader.join()
    sizes, order = [size for _, size in answers], [32, -404, 64]
    assert {32, 64} <= set(sizes) <= set(order)
    assert sizes == sorted(sizes, key=order.index)
    last_old, first_new = (max(at for at, size in answers if size == 32), min(at for at, size in answers if size == 64))
    assert first_new - last_old < 1.0, "seconds in which a reader finds nothing"
    assert docs.client.count(COPY).count == 20


def test_a_kill_in_the_gap_is_finished_by_the_next_start(
    qdrant: Qdrant, docs: Docs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old collection is gone and its name points to nothing yet: whatever is started next gives it to the new one first."""
    run, client, before = ready(qdrant, "replaced_collection"), docs.client, docs.rows(COLLECTION, "")

    def killed(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(ReplacedCollectionShadow, "finish", lambda _: None)
        patched.setattr(ReplacedCollectionShadow, "settle", killed)
        with pytest.raises(Killed):
            cutover(run)
    assert not client.collection_exists(COLLECTION)
    assert not followed(run).total.touched
    assert pointed_to(client, COLLECTION) == BESIDE
    assert cutover(run) == []
    assert docs.rows(COLLECTION, "") == docs.expected(COPY)
    assert docs.rows(COPY, "") == before
    rollback(run)
    assert docs.rows(COLLECTION, "") == before
    assert cutover(taken_for_verified(run))
    assert contract(run, 0) == [f"dropped collection {COPY}"]
    assert sorted(c.name for c in client.get_collections().collections) == [BESIDE]


def test_a_collection_that_somebody_makes_in_the_gap_is_left_alone(
    qdrant: Qdrant, docs: Docs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an application does that makes what it does not find: nothing is taken for the old points, until it is deleted."""
    run, client, drop = ready(qdrant, "replaced_collection"), docs.client, aliases.drop

    def gap(*arguments: Any) -> None:
        drop(*arguments)
        client.create_collection(COLLECTION, models.VectorParams(size=4, distance=models.Distance.COSINE))

    with monkeypatch.context() as patched:
        patched.setattr(aliases, "drop", gap)
        with pytest.raises(
            UsageError, match=r"somebody made a collection docs while the name changed hands; .* docs_before_64"
        ):
            cutover(run)
    with pytest.raises(UsageError, match="somebody made a collection docs"):
        followed(run)
    assert client.count(BESIDE).count == client.count(COPY).count == 20
    client.delete_collection(COLLECTION)
    assert cutover(run) == []
    assert pointed_to(client, COLLECTION) == BESIDE


def test_a_name_does_not_change_hands_while_others_write(
    qdrant: Qdrant, docs: Docs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qdrant cannot lock writes: where a pass always finds something new, nothing is deleted."""
    run, writes = ready(qdrant, "replaced_collection"), iter(range(1000))
    follow = BesideShadow.follow

    def busy(self: BesideShadow, *arguments: Any) -> Any:
        docs.say({400: f"written {next(writes)}"})
        return follow(self, *arguments)

    monkeypatch.setattr(BesideShadow, "follow", busy)
    with pytest.raises(VerificationRefused, match=r"docs is being written to: .*Pause what writes to it"):
        cutover(run)
    assert docs.client.count(COLLECTION).count == 21
    assert pointed_to(docs.client, COLLECTION) is None


def test_a_vector_that_the_application_wrote_is_not_overwritten(qdrant: Qdrant, docs: Docs) -> None:
    """Of a named vector: what it writes after the switch stays, whoever's text it is; what it drops by a whole upsert comes back."""
    run, client = ready(qdrant, "named_vector"), docs.client
    cutover(run)
    own = [0.0] * 63 + [1.0]
    points = [
        models.PointStruct(id=501, vector={"": [1.0] * 32, ADDED: own}, payload={KEY: "another encoder's"}),
        models.PointStruct(id=502, vector={"": [1.0] * 32, ADDED: new_vector("the same encoder's")}, payload={KEY: "the same encoder's"}),
    ]  # fmt: skip
    client.upsert(COLLECTION, points, wait=True)
    docs.say({1: "upserted whole", 503: "new, without a vector"})
    total = followed(run)
    assert total.total.missing.ids == ("1", "503")
    assert total.last.edited.ids == ("501",)
    rows = docs.rows(COLLECTION, ADDED)
    assert rows["501"][1] == own
    assert rows["502"][1] == made("the same encoder's")
    assert rows["1"][1] == made("upserted whole")


@pytest.mark.parametrize("old_model", [None, "hashing/32"])
def test_the_old_vectors_stay_true_where_their_model_is_named(
    old_model: str | None, qdrant: Qdrant, docs: Docs
) -> None:
    """After the switch the application writes new vectors alone; a rollback still finds every point by what it says now."""
    run, client = taken_for_verified(begun(qdrant.url, "named_vector", old_embedder=old_model)), docs.client
    cutover(run)
    added = models.PointStruct(id=601, vector={ADDED: new_vector("with one vector")}, payload={KEY: "with one vector"})
    client.upsert(COLLECTION, [added], wait=True)
    client.set_payload(COLLECTION, {KEY: "changed"}, [2], wait=True)
    followed(run)
    old = docs.rows(COLLECTION, "")
    true = {name: old[name][1] == pytest.approx(old_vector(text), abs=1e-4) for name, text in [("2", "changed")]}
    assert ("601" in old, true["2"]) == ((True, True) if old_model else (False, False))
    assert ("; 1 point has none" in rollback(run)[0]) == (old_model is None)


def _vector(client: QdrantClient, collection: str, n: int) -> list[float]:
    vector = client.retrieve(collection, [n], with_vectors=True)[0].vector
    assert isinstance(vector, list)
    return vector  # type: ignore[return-value]
