"""Plans how a Qdrant collection gets vectors of another space. Writes nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.base import stored
from tasks.base.errors import FatalError, UsageError
from tasks.base.words import agreeing, counted, listed
from tasks.checks.query_file import read_queries
from tasks.contents.image.content import Image
from tasks.contents.interface import Content
from tasks.contents.text import Text
from tasks.embedders.interface import Embedder, Kind
from tasks.embedders.registry import open_embedder
from tasks.planning.planned import Draft, Planned
from tasks.planning.qdrant import estimate as qdrant_estimate
from tasks.planning.qdrant.places import Asked, Setting, choose
from tasks.runs.database import Database
from tasks.runs.names import check_run_id
from tasks.runs.plan import Plan, Request, Target
from tasks.stores.interface import Selected
from tasks.stores.postgres.lookup import Lookup
from tasks.stores.qdrant import configuration
from tasks.stores.qdrant.client import Qdrant, opened
from tasks.stores.qdrant.points import payload_value
from tasks.stores.qdrant.shapes import METRICS, Shape, called, chosen, shapes
from tasks.stores.registry import open_source

ANYWHERE = "https://"
"""Where references are whole URLs."""
FIRST = 100
"""Points whose payloads are looked at."""


def draft(database: Database, request: Request, run_id: str) -> Draft:
    """The plan of a new run. Raises UsageError when the server, the collection or a vector of it is not there."""
    asked = stored.read(Asked, request.own)
    where = {key: request.source.get(key) for key in ("url", "path", "api_key")}
    qdrant = opened(**where)
    names, aliases = _listed(qdrant)
    name = _collection(names, aliases, asked.collection)
    settings = configuration.read(qdrant, name)
    vectors = shapes(settings)
    old = _old_vector(name, vectors, asked.old_vector)
    embedder = open_embedder(request.embedder or "")
    setting = Setting(
        asked=asked,
        qdrant=qdrant,
        names=names,
        aliases=aliases,
        collection=name,
        settings=settings,
        vectors=vectors,
        old=old,
        dimensions=embedder.space.dimensions,
        where=where,
        model=request.embedder or "",
    )
    choice = choose(setting)
    source = open_source(request.source, [Selected(name, None, choice.place.rows)])
    old_space = open_embedder(request.old_embedder).space if request.old_embedder else None
    described = source.records(name).describe()
    target = Target(
        number=0,
        collection=described,
        place=choice.place,
        dimensions=embedder.space.dimensions,
        space=embedder.space.fingerprint,
        old_space=old_space.fingerprint if old_space else None,
        limit=request.limit,
        content=_content(asked, embedder),
    )
    problems, warnings = list(choice.problems), list(choice.warnings)
    if old_space and old_space.dimensions != described.dimensions:
        size, dims = counted(described.dimensions or 0, "dimension"), f"{old_space.dimensions:,}"
        problems.append(f"collection {name} has {size}, but {request.old_embedder} has {dims}")
    payloads = list(_payloads(qdrant, name))
    problems += _without_document(request, name, payloads)
    warnings += _some_without(request, name, payloads)
    if lookup := request.source.get("lookup"):
        warnings += Lookup(**lookup).warnings()
    if not described.count:
        warnings.append(f"{name} is empty: a migration of 0 points")
    if request.queries:
        read_queries(request.queries)
    return Draft(Plan(check_run_id(run_id), request, (target,)), problems, warnings)


def examine(database: Database, draft: Draft) -> Draft:
    """Qdrant knows how many points it holds."""
    return draft


def estimate(database: Database, draft: Draft) -> Planned:
    """What it will do, take and cost."""
    (target,), request = draft.plan.targets, draft.plan.request
    source = open_source(
        request.source, [Selected(target.collection.name, target.collection.metric, target.place.rows)]
    )
    with database.connection() as connection:
        return qdrant_estimate.estimate(connection, draft, source)


def prepare(database: Database) -> None:
    """A collection stands on nothing."""


def _listed(qdrant: Qdrant) -> tuple[list[str], dict[str, str]]:
    """The names of all collections, and what each alias points to. A key that is refused is told before a run begins."""
    try:
        return qdrant.collections(), qdrant.aliases()
    except FatalError as error:
        raise UsageError(str(error)) from error


def _collection(names: Sequence[str], aliases: Mapping[str, str], asked: str) -> str:
    """The collection itself, where an alias of it is named."""
    real = aliases.get(asked, asked)
    if real in names:
        return real
    known = sorted({*names, *aliases})
    raise UsageError(f"Qdrant has no collection {asked!r}; available: {', '.join(known) or 'none'}")


def _old_vector(name: str, vectors: Mapping[str, Shape], asked: str | None) -> Shape:
    """The vector that is to have a successor."""
    single = [vector for vector in vectors.values() if vector.kind == "dense"]
    if not single:
        raise UsageError(f"collection {name} has no dense vectors, so there is nothing to replace")
    if asked is None and len(single) > 1:
        names = listed([called(vector.name) for vector in single])
        raise UsageError(
            f"collection {name} has {counted(len(single), 'dense vector')}, {names}: say which has the old embeddings, "
            f"-p old_vector={single[0].name or repr('')}"
        )
    vector = chosen(name, vectors, single[0].name if asked is None else asked)
    if vector.distance not in METRICS:
        usual = " or ".join(METRICS)
        raise UsageError(f"collection {name} has the distance {vector.distance}; only {usual} can be migrated")
    return vector


def _content(asked: Asked, embedder: Embedder) -> Content:
    """What the model is given; pictures are searched by texts, where it takes those."""
    if asked.content == "text":
        return Text()
    options = {name: value for name, value in asked.images.items() if value is not None}
    by: Kind = "text" if "text" in embedder.takes else "image"
    return Image(**{"root": ANYWHERE, **options, "allow_hosts": tuple(options["allow_hosts"]), "asked": by})


def _payloads(qdrant: Qdrant, name: str) -> Iterator[Mapping[str, Any]]:
    """Of the first points."""
    with qdrant.refused():
        points, _ = qdrant.client.scroll(name, limit=FIRST, with_payload=True, with_vectors=False)
    yield from (point.payload or {} for point in points)


def _without_document(request: Request, name: str, payloads: list[Mapping[str, Any]]) -> Iterator[str]:
    key, content = request.source["document"], request.own["content"]
    if payloads and not any(payload_value(payload, key) is not None for payload in payloads):
        keys = Counter(key for payload in payloads for key in payload)
        known = ", ".join(sorted(keys)) or "none"
        yield (
            f"collection {name}: {key!r} is in no payload of its first {counted(len(payloads), 'point')}, so there is no {content} to "
            f"embed; the keys there: {known}. Name another, -p {content}=KEY, or the SQL table that has it, "
            f"-p {content}.table=TABLE -p {content}.key=KEY"
        )


def _some_without(request: Request, name: str, payloads: list[Mapping[str, Any]]) -> Iterator[str]:
    key, content = request.source["document"], request.own["content"]
    without = sum(payload_value(payload, key) is None for payload in payloads)
    if 0 < without < len(payloads):
        yield (
            f"collection {name}: {without:,} of its first {counted(len(payloads), 'point')} {agreeing(without, 'have')} no {key!r}: "
            f"without {'an image' if content == 'image' else 'a text'} there is no new vector, and the payload is kept"
        )
