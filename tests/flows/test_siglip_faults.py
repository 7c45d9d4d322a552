"""What goes wrong between a user and Qdrant is one clear line, and nothing is changed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from flows.cutover import cutover
from flows.siglip_to_clip import siglip_to_clip
from tasks.base.errors import FatalError, UsageError, VecferryError, VerificationRefused
from tasks.stores.postgres.connection import Connection
from tasks.stores.qdrant import client as clients
from tests.flows.test_mistakes import Vecferry, one_line
from tests.helpers.captioned import NAME, NEW, OLD, Points
from tests.helpers.qdrant import Qdrant
from tests.helpers.qdrant_server import QdrantServer, qdrant_server
from tests.helpers.servers import free_port

TEXTS = {"content": "text", "text": "caption", "embedder": f"hashing/{NEW.dimensions}"}
ASKED = [part for name, value in TEXTS.items() for part in ("-p", f"{name}={value}")]
RUN = ("run", "siglip-to-clip", *ASKED, "-p", "database=DATABASE_URL")
BESIDE = f"{NAME}_{NEW.dimensions}"
SET_ASIDE = {"gates": {"max_quarantined": 10}}


def world(client: QdrantClient) -> Any:
    """All that is there: collections with their points and configurations, and aliases."""
    names = sorted(c.name for c in client.get_collections().collections)
    points = {n: client.scroll(n, limit=1000, with_vectors=True)[0] for n in names}
    return points, {n: client.get_collection(n).config for n in names}, client.get_aliases().aliases


@pytest.fixture
def parameters(qdrant: Qdrant, database: str) -> dict[str, Any]:
    """Of a flow over a collection of texts."""
    Points(qdrant.client()).make(30)
    return {"qdrant": {"url": qdrant.url}, **TEXTS, "batch_rows": 10, "database": "DATABASE_URL", **SET_ASIDE}


def test_mistakes_of_a_command(vecferry: Vecferry, qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, none named, no such collection, no such key in the payload, a name that is taken: one line, exit 2, nothing made."""
    client, at = qdrant.client(), ("-p", f"qdrant.url={qdrant.url}")
    Points(client).make(12)
    before = world(client)
    monkeypatch.delenv("QDRANT_URL", raising=False)
    one_line(vecferry(*RUN), "no Qdrant is named", "QDRANT_URL")
    one_line(vecferry(*RUN, "-p", f"qdrant.url=http://127.0.0.1:{free_port()}"), "cannot reach Qdrant", "qdrant.url")
    one_line(vecferry(*RUN, *at, "-p", "collection=photos"), "no collection 'photos'", "image_chunks")
    one_line(
        vecferry(*RUN, *at, "-p", "text=image_path"),
        "'image_path' is in no payload",
        "the keys there: caption, chunk_id",
    )
    one_line(vecferry(*RUN, *at, "-p", f"new_collection={NAME}"), "is not vecferry's", "-p new_collection=NAME")
    one_line(vecferry("run", "siglip-to-clip", *at, "-p", "content=text"), "set embedder")
    one_line(vecferry(*RUN, *at, "-p", "qdrant.path=/tmp"), "qdrant.url or qdrant.path, not both")
    monkeypatch.setenv("QDRANT_URL", qdrant.url)
    one_line(vecferry(*RUN, "-p", "collection=photos"), "no collection 'photos'")
    assert world(client) == before


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[QdrantServer]:
    with qdrant_server(tmp_path / "guarded", api_key="whole", read_only_key="reading") as server:
        yield server


def test_keys(
    guarded: QdrantServer, vecferry: Vecferry, database: str, prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong one is told at once; one that may only read gets a plan, and a run that ends before anything is made; a name that
    stands for nothing is named."""
    client = QdrantClient(guarded.url, api_key="whole")
    Points(client).make(12)
    before, at = world(client), ("-p", f"qdrant.url={guarded.url}")
    monkeypatch.setenv("QDRANT_API_KEY", "wrong")
    one_line(vecferry(*RUN, *at), guarded.url, "key")
    one_line(vecferry(*RUN, *at, "-p", "qdrant.api_key=NO_SUCH_KEY"), "NO_SUCH_KEY")
    monkeypatch.setenv("QDRANT_API_KEY", "reading")
    assert vecferry("plan", "siglip-to-clip", *ASKED, *at, "-p", "database=DATABASE_URL")[0] == 0
    with pytest.raises(FatalError) as error:
        siglip_to_clip(qdrant={"url": guarded.url}, **TEXTS, database="DATABASE_URL", run_id="r")
    assert "key" in str(error.value)
    assert "\n" not in str(error.value)
    assert world(client) == before


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("status", [507, 500])
def test_a_disk_that_is_full_at_the_server(qdrant: Qdrant, parameters: dict[str, Any], status: int) -> None:
    """The run stops at once and says why; once there is room the same run goes on to the end, and nothing is embedded twice."""
    server, calls = qdrant.server, list[Any]()
    server.fail("upsert_points", status, 1 << 30) if status == 507 else server.disk_full(status)
    with pytest.raises(VecferryError) as error:
        siglip_to_clip(**parameters, run_id="r")
    calls = [call for call in server.calls() if call.status == status]
    assert 0 < len(calls) <= 10
    assert "space" in str(error.value) or "storage" in str(error.value)
    assert "\n" not in str(error.value)
    assert not qdrant.client().get_aliases().aliases
    server.mend()
    assert siglip_to_clip(**parameters, run_id="r")["state"] == "verified"


@pytest.mark.usefixtures("prefect")
def test_a_search_by_old_vectors_after_the_switch(qdrant: Qdrant, parameters: dict[str, Any]) -> None:
    """Who was not told gets Qdrant's own words: which size there is, and which it sent; so does who writes."""
    siglip_to_clip(**{**parameters, "strategy": "replace"}, run_id="r", cutover="auto")
    client, old = qdrant.client(), OLD.embed(["a text"]).whole[0].tolist()
    words = f"expected dim: {NEW.dimensions}, got {OLD.dimensions}"
    with pytest.raises(UnexpectedResponse, match=words):
        client.query_points(NAME, old)
    with pytest.raises(UnexpectedResponse, match=words):
        client.upsert(NAME, [models.PointStruct(id=1, vector=old)], wait=True)
    new = NEW.embed([Points(client).payload(3)["caption"]]).whole[0].tolist()
    assert client.query_points(NAME, new, limit=1).points[0].id == 3


@pytest.mark.usefixtures("prefect")
def test_an_alias_that_points_elsewhere_by_the_cutover(qdrant: Qdrant, parameters: dict[str, Any]) -> None:
    """It is somebody's, and stays where it is."""
    client = qdrant.client()
    siglip_to_clip(**parameters, run_id="r")
    alias = models.CreateAlias(collection_name=NAME, alias_name=f"{BESIDE}_current")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    before = client.get_aliases()
    with pytest.raises(VerificationRefused, match=f"alias {BESIDE}_current points to {NAME}"):
        cutover(run_id="r", database="DATABASE_URL", **SET_ASIDE)
    assert client.get_aliases() == before


def test_a_server_that_is_too_old(tmp_path: Path, connection: Connection, vecferry: Vecferry) -> None:
    """For a named vector it is told which version can; for all of it, which one is needed."""
    with qdrant_server(tmp_path / "older", version="1.17.0") as older:
        Points(QdrantClient(older.url)).make(12)
        ended = vecferry(*RUN, "-p", f"qdrant.url={older.url}", "-p", "strategy=named_vector")
        one_line(ended, "Qdrant 1.17.0 cannot add a vector", "-p strategy=alias")
    with qdrant_server(tmp_path / "oldest", version="1.9.0") as oldest:
        one_line(vecferry(*RUN, "-p", f"qdrant.url={oldest.url}"), "version 1.9.0", "upgrade")


def test_local_mode_cannot_keep_a_vector_beside_one_without_a_name(
    tmp_path: Path, vecferry: Callable[..., Any]
) -> None:
    """It would let nobody write any more."""
    path = str(tmp_path / "qdrant")
    client = clients.created(path).client
    Points(client).make(12)
    before = world(client)
    ended = vecferry(*RUN, "-p", f"qdrant.path={path}", "-p", "strategy=named_vector")
    one_line(ended, "cannot keep a named vector beside the unnamed one", "-p strategy=alias")
    assert world(client) == before


def test_what_a_run_is_resumed_with(
    vecferry: Vecferry, connection: Connection, parameters: dict[str, Any], prefect: None
) -> None:
    """Another strategy for a run that there is contradicts its plan."""
    siglip_to_clip(**parameters, run_id="r")
    with pytest.raises(UsageError, match="strategy is None in the plan, now 'replace'"):
        siglip_to_clip(**{**parameters, "strategy": "replace"}, run_id="r")
