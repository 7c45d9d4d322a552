"""Plans of Qdrant collections: which place is chosen, and what is in the way of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from flows.forms.form import parse
from flows.forms.siglip_to_clip import SiglipToClip
from tasks.base.errors import UsageError
from tasks.planning.planned import Draft
from tasks.planning.qdrant.places import slug
from tasks.planning.registry import draft, make_plan
from tasks.stores.postgres.connection import Connection
from tasks.stores.qdrant import client as clients
from tests.helpers.captioned import NEW, OLD, Points
from tests.helpers.qdrant import Qdrant
from tests.helpers.qdrant_server import QdrantServer, qdrant_server
from tests.helpers.sampling import sampled

Planning = Callable[..., Draft]
TEXTS = {"content": "text", "text": "caption", "embedder": f"hashing/{NEW.dimensions}"}


@pytest.fixture
def planning(connection: Connection, qdrant: Qdrant) -> Planning:
    """Plans a migration of texts on the test server."""

    def plan(**asked: Any) -> Draft:
        form = parse(SiglipToClip, {"qdrant": {"url": qdrant.url}, **TEXTS, **asked})
        return draft(connection, form.request(), "r")

    return plan


def place_of(drafted: Draft) -> dict[str, Any]:
    (target,) = drafted.plan.targets
    return {"kind": target.place.kind, **vars(target.place)}


def test_vectors_without_names_go_behind_an_alias(planning: Planning, qdrant: Qdrant) -> None:
    """The names say the vector size; the plan says that only `replace` gives the new vectors under the old name, with both
    commands."""
    Points(qdrant.client()).make(12)
    drafted = planning()
    assert drafted.problems == []
    assert place_of(drafted).items() >= {
        "kind": "new_collection", "collection": "image_chunks", "vector": "", "new_vector": "", "dimensions": 48,
        "distance": "Cosine", "new_collection": "image_chunks_48", "alias": "image_chunks_48_current", "alias_was": None,
    }.items()  # fmt: skip
    assert any(
        "-p strategy=alias; vecferry run siglip-to-clip -p strategy=replace" in line for line in drafted.warnings
    )
    named = planning(new_collection="pictures", alias="now", vector_name="clip")
    assert place_of(named).items() >= {"new_collection": "pictures", "alias": "now", "new_vector": "clip"}.items()


def test_vectors_with_names_get_another_beside_them(planning: Planning, qdrant: Qdrant) -> None:
    """Where the server can add one; it is called like the model. In a new collection it goes by the name of the old ones, so that
    nobody has to search by another."""
    Points(qdrant.client(), old="siglip").make(12)
    assert (
        place_of(planning()).items() >= {"kind": "named_vector", "vector": "siglip", "new_vector": "hashing_48"}.items()
    )
    assert place_of(planning(strategy="alias"))["new_vector"] == "siglip"
    assert place_of(planning(strategy="replace")).items() >= {
        "kind": "replaced_collection", "new_vector": "siglip", "copy": "image_chunks_before_48",
    }.items()  # fmt: skip
    assert any("pause whatever writes to image_chunks" in line for line in planning(strategy="replace").warnings)
    assert planning(vector_name="siglip").problems == [
        "collection image_chunks has a vector 'siglip' already: choose another name, -p vector_name=NAME"
    ]


@pytest.mark.parametrize(
    ("strategy", "shown"),
    [("named_vector", "image_chunks.hashing_48"), ("alias", "image_chunks_48"), ("replace", "image_chunks_48")],
)
def test_what_is_shown_of_a_run(planning: Planning, qdrant: Qdrant, strategy: str, shown: str) -> None:
    """The vectors that were made, under the name that they have before the switch too."""
    Points(qdrant.client(), old="siglip").make(12)
    (target,) = planning(strategy=strategy).plan.targets
    assert target.place.shape(20_000) == f"{shown}: vector size 48, distance Cosine, 20,000 points"


def test_a_named_vector_beside_one_without_a_name_is_chosen_by_nobody_else(planning: Planning, qdrant: Qdrant) -> None:
    """It is possible, and changes what the application reads and what its writes do."""
    Points(qdrant.client()).make(12)
    drafted = planning(strategy="named_vector", vector_name="clip")
    assert (place_of(drafted)["kind"], drafted.problems) == ("named_vector", [])
    assert any('{"": …, "clip": …}' in line and "drops its new vector" in line for line in drafted.warnings)


def test_an_alias_that_is_asked_for_moves(planning: Planning, qdrant: Qdrant) -> None:
    """The collection behind it is migrated, and nothing is said of names; it cannot be replaced under it."""
    client = qdrant.client()
    Points(client, name="image_chunks_32").make(12)
    alias = models.CreateAlias(collection_name="image_chunks_32", alias_name="image_chunks")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    drafted = planning()
    assert drafted.plan.targets[0].collection.name == "image_chunks_32"
    assert place_of(drafted).items() >= {
        "collection": "image_chunks_32", "new_collection": "image_chunks_48", "alias": "image_chunks",
        "alias_was": "image_chunks_32",
    }.items()  # fmt: skip
    assert not any("replace" in line for line in drafted.warnings)
    (problem,) = planning(strategy="replace").problems
    assert problem.startswith("image_chunks is an alias of image_chunks_32")
    assert "it takes no alias" in planning(collection="image_chunks_32", strategy="replace", alias="x").problems[0]


def test_what_is_somebody_elses_is_left_alone(planning: Planning, qdrant: Qdrant) -> None:
    """A collection of the new name, one of a run of vecferry's, an alias in the place of a name, a collection in that of an alias, and
    an alias that points to another collection: a line each, with the parameter."""
    client = qdrant.client()
    Points(client).make(12)
    Points(client, name="image_chunks_48").make(3)
    Points(client, name="ours").make(3, metadata={"vecferry": {"run_id": "earlier", "space": "x"}})
    alias = models.CreateAlias(collection_name="ours", alias_name="other")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    assert planning().problems == [
        "collection image_chunks_48 exists and is not vecferry's: choose another name, -p new_collection=NAME"
    ]
    assert planning(new_collection="ours").problems == [
        "collection ours exists and belongs to run earlier (vecferry status earlier): choose another name, -p new_collection=NAME"
    ]
    assert planning(new_collection="other").problems == [
        "other is an alias of ours: choose another name, -p new_collection=NAME"
    ]
    assert planning(new_collection="free", alias="ours").problems == [
        "ours is the name of a collection, so it cannot be an alias: choose another, -p alias=NAME"
    ]
    assert planning(new_collection="free", alias="other").problems == [
        "alias other points to ours, and not to image_chunks: choose another, -p alias=NAME"
    ]


def test_names_that_are_not_there(planning: Planning, qdrant: Qdrant) -> None:
    """A collection, a payload key, a vector among several: what there is is named."""
    client = qdrant.client()
    with pytest.raises(UsageError, match="Qdrant has no collection 'image_chunks'; available: none"):
        planning()
    Points(client).make(12)
    with pytest.raises(UsageError, match="Qdrant has no collection 'photos'; available: image_chunks"):
        planning(collection="photos")
    (problem,) = planning(text="title").problems
    assert problem.startswith(
        "collection image_chunks: 'title' is in no payload of its first 12 points, so there is no text"
    )
    assert "the keys there: caption, chunk_id, document_id, image_type" in problem
    assert any("1 of its first 12 points has no 'caption'" in line for line in planning().warnings)
    client.create_collection("two", {n: models.VectorParams(size=3, distance=models.Distance.DOT) for n in ("a", "b")})
    with pytest.raises(UsageError, match=r"has 2 dense vectors, vector a and vector b: .* -p old_vector=a"):
        planning(collection="two")
    assert place_of(planning(collection="two", old_vector="b"))["vector"] == "b"
    client.create_collection("far", models.VectorParams(size=3, distance=models.Distance.MANHATTAN))
    with pytest.raises(
        UsageError, match="collection far has the distance Manhattan; only Cosine or Dot or Euclid can be migrated"
    ):
        planning(collection="far")


def test_an_old_model_of_another_size_is_not_that_of_the_vectors(planning: Planning, qdrant: Qdrant) -> None:
    """Before anything is embedded."""
    Points(qdrant.client()).make(12)
    assert planning(old_embedder="hashing/40").problems == [
        "collection image_chunks has 32 dimensions, but hashing/40 has 40"
    ]
    assert planning(old_embedder=f"hashing/{OLD.dimensions}").problems == []


@pytest.fixture
def older(tmp_path: Path) -> Any:
    with qdrant_server(tmp_path / "older", version="1.17.1") as server:
        yield server


def test_a_server_that_cannot_add_a_vector(connection: Connection, older: QdrantServer) -> None:
    """Gets a new collection, by itself; asked for the other, the plan says which version could."""
    Points(QdrantClient(older.url), old="siglip").make(12)
    form = parse(SiglipToClip, {"qdrant": {"url": older.url}, **TEXTS})
    assert place_of(draft(connection, form.request(), "r"))["kind"] == "new_collection"
    form = parse(SiglipToClip, {"qdrant": {"url": older.url}, "strategy": "named_vector", **TEXTS})
    (problem,) = draft(connection, form.request(), "r").problems
    assert problem == (
        "Qdrant 1.17.1 cannot add a vector to collection image_chunks, as 1.18 or newer can: use a new collection, -p strategy=alias"
    )


@pytest.mark.parametrize("old", sampled(["", "siglip"], ""))
def test_local_mode(connection: Connection, tmp_path: Path, old: str) -> None:
    """A directory is planned like a server, save that no vector can be put beside one without a name."""
    folder = str(tmp_path / "qdrant")
    Points(clients.created(folder).client, old=old).make(12)
    form = parse(SiglipToClip, {"qdrant": {"path": folder}, **TEXTS})
    drafted = draft(connection, form.request(), "r")
    assert (place_of(drafted)["kind"], drafted.problems) == ("named_vector" if old else "new_collection", [])
    form = parse(SiglipToClip, {"qdrant": {"path": folder}, "strategy": "named_vector", **TEXTS})
    problems = draft(connection, form.request(), "r").problems
    assert [line[:56] for line in problems] == (
        [] if old else ["the local mode of qdrant-client cannot keep a named vector b"[:56]]
    )


def test_what_is_shown(connection: Connection, qdrant: Qdrant) -> None:
    """Vector size, distance and number of points, as the guide's script prints them, and the requests that change something."""
    Points(qdrant.client()).make(12)
    form = parse(SiglipToClip, {"qdrant": {"url": qdrant.url}, **TEXTS})
    planned = make_plan(connection, form.request(), "r")
    lines = [line for more in planned.more for line in more.lines]
    assert "image_chunks: vector size 32, distance Cosine, 12 points" in lines
    assert "  at the cutover: POST /collections/aliases, image_chunks_48_current → image_chunks_48" in lines
    assert planned.listing.rows == [("image_chunks", "image_chunks_48", "12", "32 → 48", "Cosine", "caption")]


def test_the_name_of_a_model() -> None:
    """As a vector is called by it."""
    assert slug("sentence-transformers/clip-ViT-L-14?device=cpu") == "clip_vit_l_14"
    assert slug("timm/hf-hub:BVRA/MegaDescriptor-L-384@abc") == "megadescriptor_l_384"
    assert slug("sentence-transformers//srv/models/tiny/") == "tiny"
    assert slug("hashing/48") == "hashing_48"
