"""What collections take and cost, by a sample of their records, and by all their documents where those are paid for. Writes
nothing."""

import time
from collections.abc import Iterator

import numpy as np

from tasks.base.words import agreeing, counted, plural
from tasks.planning import sample
from tasks.planning.account import cost_of, over_budget
from tasks.planning.planned import Draft, Listing, Look, Planned
from tasks.runs.plan import Plan
from tasks.stores import canonical
from tasks.stores.interface import Records, Source
from tasks.stores.postgres.connection import Connection

PAGE, SAMPLE = 2_000, 1_000
"""Records that are read at once, and records a collection that are looked at for metadata, missing vectors and sizes."""


def estimate(connection: Connection, draft: Draft, source: Source, statements: list[str]) -> Planned:
    """The plan as it is shown; ``statements`` are those that change something."""
    plan, request = draft.plan, draft.plan.request
    looks = [look_at(source.records(t.collection.name), request.embedder) for t in plan.targets]
    cost = cost_of(connection, request.embedder, texts(source, plan)) if request.embedder else None
    warnings = [*draft.warnings, *_target_warnings(plan, looks), *over_budget(cost, request.budget_usd)]
    return Planned(
        plan,
        _listing(plan, looks),
        looks,
        statements,
        draft.problems,
        warnings,
        cost,
        copied_bytes=source.copied_bytes,
    )


def _listing(plan: Plan, looks: list[Look]) -> Listing:
    rows: list[tuple[str | None, ...]] = []
    for target, look in zip(plan.targets, looks, strict=True):
        keys = ", ".join(f"{key} ({'/'.join(types)})" for key, types in look.metadata.items())
        of = target.collection
        dims = str(target.dimensions or "")
        rows.append((of.name, target.name, target.place.kind, f"{of.count:,}", dims, of.metric, keys))
    return Listing(("collection", "table", "action", "rows", "dims", "metric", "metadata keys"), rows)


def _target_warnings(plan: Plan, looks: list[Look]) -> Iterator[str]:
    for target, look in zip(plan.targets, looks, strict=True):
        name = target.collection.name
        if target.collection.count == 0:
            yield f"{name} is empty: a migration of 0 rows"
        sampled = counted(look.sampled, "sampled record")
        if look.without_vector:
            yield (
                f"{name}: {look.without_vector:,} of {sampled} {agreeing(look.without_vector, 'have')} no vector "
                "and will get none"
            )
        if look.without_document and not target.carried:
            have = agreeing(look.without_document, "have")
            yield (
                f"{name}: {look.without_document:,} of {sampled} {have} no document to embed, and will get no vector"
            )
        if target.dimensions and target.place.layout.index_type is None:
            yield (
                f"{name} has {target.dimensions} {plural(target.dimensions, 'dimension')}, beyond pgvector's index "
                "limit of 4000, so searches will be exact and slow"
            )
        elif target.place.layout.index_type == "halfvec" and target.place.layout.type == "vector":
            yield f"{name}: indexed as halfvec; queries must order by embedding::halfvec({target.dimensions})"
        mixed = sorted(key for key, types in look.metadata.items() if len(types) > 1)
        if mixed:
            yield f"{name}: metadata of mixed types under {', '.join(mixed)}; all of them are kept"
        if target.place.steps_aside:
            yield (
                f"{target.name} is vecferry's, with another layout: a new table is built and the old one steps aside"
            )


def look_at(records: Records, embedder: str | None) -> Look:
    """What a sample of the records shows, and what a few of their texts take where the model is free of charge."""
    ids = records.ids()
    step = max(1, len(ids) // SAMPLE)
    started = time.perf_counter()
    page = records.fetch(ids[::step][:SAMPLE].to_pylist())
    seconds = (time.perf_counter() - started) / max(page.num_rows, 1)
    types: dict[str, set[str]] = {}
    sizes = []
    for document, metadata in zip(
        page.column("document").to_pylist(), page.column("metadata").to_pylist(), strict=True
    ):
        sizes.append(len(document or "") + len(metadata or "") + 60)
        for key, value in (canonical.loads(metadata) or {}).items():
            types.setdefault(key, set()).add(type(value).__name__)
    return Look(
        page.num_rows,
        {key: sorted(kinds) for key, kinds in sorted(types.items())},
        page.column("embedding").null_count,
        page.column("document").null_count,
        float(np.mean(sizes)) if sizes else 0.0,
        seconds + sample.embedding_seconds(embedder, page.column("document").drop_null().to_pylist()),
    )


def texts(source: Source, plan: Plan) -> Iterator[list[str]]:
    """What is embedded, page by page."""
    for target in plan.targets:
        records = source.records(target.collection.name)
        ids = records.ids()[: target.limit]
        for at in range(0, len(ids), PAGE):
            page = records.fetch(ids[at : at + PAGE].to_pylist())
            yield [text for text in page.column("document").to_pylist() if text]
