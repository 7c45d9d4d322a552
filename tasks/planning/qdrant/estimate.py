"""What new vectors of a Qdrant collection take: by a sample of its images that is opened and a few that are embedded, or by its
texts. Writes nothing."""

from dataclasses import asdict

from tasks.base.words import counted
from tasks.embedders.registry import open_embedder
from tasks.planning import collection_estimate, image_estimate
from tasks.planning.account import cost_of, over_budget
from tasks.planning.planned import Cost, Draft, Listing, More, Planned
from tasks.runs.plan import Plan, Target
from tasks.stores.interface import Records, Source
from tasks.stores.postgres.connection import Connection
from tasks.stores.qdrant.places import QdrantPlace


def estimate(connection: Connection, draft: Draft, source: Source) -> Planned:
    """The plan as it is shown. ``connection`` leads to the ledger."""
    plan, model = draft.plan, draft.plan.request.embedder or ""
    (target,) = plan.targets
    records = source.records(target.collection.name)
    is_text = target.content.gives == "text"
    look = collection_estimate.look_at(records, model if is_text else None)
    warnings, more = list(draft.warnings), [_sizes(target, source)]
    seconds: float | None = None
    cost: Cost | None = None
    if is_text:
        cost = cost_of(connection, model, collection_estimate.texts(source, plan))
        warnings += over_budget(cost, plan.request.budget_usd)
    else:
        embedder = open_embedder(model)
        sampled = image_estimate.sample(target.collection.name, target, _references(records, target), embedder, plan)
        warnings += image_estimate.warnings([sampled])
        more += [image_estimate.model(model, embedder), More("images", asdict(sampled), list(sampled.lines()))]
        seconds = sampled.seconds
    more.append(_requests(target))
    return Planned(plan, _listing(plan), [look], [], draft.problems, warnings, cost, least_seconds=seconds, more=more)


def _listing(plan: Plan) -> Listing:
    (target,) = plan.targets
    of, place = target.collection, target.place
    size = f"{of.dimensions} → {target.dimensions}"
    row = (of.name, place.name, f"{of.count:,}", size, place.distance, plan.request.source["document"])
    return Listing(("collection", "new vectors", "points", "size", "distance", "of"), [row])


def _sizes(target: Target[QdrantPlace], source: Source) -> More:
    """What the guide's script prints."""
    of, place = target.collection, target.place
    values = {
        "vector_size": of.dimensions,
        "distance": place.distance,
        "points": of.count,
        "versions": source.version(),
    }
    lines = [
        f"{of.name}: vector size {of.dimensions}, distance {place.distance}, {counted(of.count, 'point')}",
        f"{place.name} after the cutover: vector size {target.dimensions}, distance {place.distance}",
    ]
    return More("collection", values, lines)


def _requests(target: Target[QdrantPlace]) -> More:
    sent = [f"{when}: {request}" for when, request in target.place.requests()]
    return More("requests", {"sent": sent}, ["", "Requests that change something:", *(f"  {line}" for line in sent)])


def _references(records: Records, target: Target[QdrantPlace]) -> list[str | None]:
    """Of points that are spread over the collection."""
    ids = records.ids()[: target.limit]
    step = max(1, len(ids) // image_estimate.SAMPLE)
    page = records.fetch(ids[::step][: image_estimate.SAMPLE].to_pylist())
    documents: list[str | None] = page.column("document").to_pylist()
    return documents
