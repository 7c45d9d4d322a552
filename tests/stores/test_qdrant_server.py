"""The tests' own Qdrant server answers as Qdrant does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.helpers.qdrant import Qdrant
from tests.helpers.qdrant_server import qdrant_server

FOUR = models.VectorParams(size=4, distance=models.Distance.COSINE)
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


@pytest.fixture
def client(qdrant: Qdrant) -> Iterator[QdrantClient]:
    opened = qdrant.client()
    yield opened
    opened.close()


def point(identity: int | str, vector: object = None, **payload: object) -> models.PointStruct:
    return models.PointStruct(id=identity, vector=[1.0, 2, 3, 4] if vector is None else vector, payload=payload)


def refused(status: int, call: object, *arguments: object, **named: object) -> str:
    """The body of the answer, which has to have that status."""
    with pytest.raises(UnexpectedResponse) as error:
        call(*arguments, **named)  # type: ignore[operator]
    assert error.value.status_code == status
    return error.value.content.decode()


def test_a_point_comes_back_as_it_was_written(client: QdrantClient) -> None:
    """Payload and vectors are answered as they were written, cosine vectors as directions, for both kinds of id."""
    client.create_collection("docs", FOUR)
    client.upsert("docs", [point(1, image_path="a.png", n=None), point(UUID)])
    page, offset = client.scroll("docs", with_vectors=True)
    assert [one.id for one in page] == [1, UUID]
    assert page[0].payload == {"image_path": "a.png", "n": None}
    assert page[1].vector == [0.18257418, 0.36514837, 0.5477225, 0.73029673]
    assert offset is None
    assert client.count("docs").count == 2


def test_an_upsert_drops_a_vector_that_it_does_not_name(client: QdrantClient) -> None:
    """A vector name beside the unnamed one: info becomes a map, and writing a whole point loses what it does not name."""
    client.create_collection("docs", FOUR)
    client.upsert("docs", [point(1), point(2)])
    dense = models.DenseVectorConfig(size=2, distance=models.Distance.DOT)
    client.create_vector_name("docs", "clip", models.DenseVectorNameConfig(dense=dense))
    client.update_vectors("docs", [models.PointVectors(id=one, vector={"clip": [1, 2]}) for one in (1, 2)])
    client.upsert("docs", [point(2)])
    assert set(client.get_collection("docs").config.params.vectors) == {"", "clip"}
    without = models.Filter(must_not=[models.HasVectorCondition(has_vector="clip")])
    assert [one.id for one in client.scroll("docs", scroll_filter=without)[0]] == [2]


def test_aliases(client: QdrantClient) -> None:
    """An alias is resolved before a collection, moves silently, cannot have a collection's name, and an error midway leaves what
    went before."""
    for name in ("a", "b"):
        client.create_collection(name, FOUR)
    to = lambda target, name: models.CreateAliasOperation(  # noqa: E731
        create_alias=models.CreateAlias(collection_name=target, alias_name=name)
    )
    client.update_collection_aliases([to("a", "current")])
    client.update_collection_aliases([to("b", "current")])
    assert "already exists" in refused(409, client.update_collection_aliases, [to("a", "half"), to("a", "b")])
    aliases = {one.alias_name: one.collection_name for one in client.get_aliases().aliases}
    assert aliases == {"current": "b", "half": "a"}


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Points, configuration, indexes and aliases are there after SIGKILL and a start over the same folder."""
    with qdrant_server(tmp_path) as server:
        client = QdrantClient(server.url)
        client.create_collection("docs", FOUR, metadata={"run": "r1"})
        client.create_payload_index("docs", "image_path", "keyword")
        client.upsert("docs", [point(1, image_path="a")])
        server.kill()
        server.restart()
        info = client.get_collection("docs")
        assert client.retrieve("docs", [1])[0].payload == {"image_path": "a"}
        assert (info.config.metadata, set(info.payload_schema)) == ({"run": "r1"}, {"image_path"})
