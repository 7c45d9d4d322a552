"""What new vectors of a live table's images take, by a sample of them that is opened and a few that are embedded. Writes nothing."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from psycopg import sql

from tasks.base.words import counted, duration
from tasks.contents.interface import Content
from tasks.embedders.interface import Embedder, Item, RowError
from tasks.embedders.pictures import Size, measure
from tasks.embedders.precision import row_cosines
from tasks.embedders.registry import open_embedder
from tasks.planning.layouts import layout_costs
from tasks.planning.planned import Draft, Listing, Look, More, Planned
from tasks.runs.plan import Plan, Target
from tasks.runs.vectors import keys_of
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import LivePlace

SAMPLE = 200
"""Images that are opened."""
COMPARED = 8
"""Images by which a model that computes with fewer bits is compared with itself."""
KEPT = 1 << 27
"""Bytes of images of the sample that are kept in memory, to be embedded."""
LONGEST = 20.0
"""Seconds in which images of the sample are embedded, at the most; what a slow model has embedded by then is measured."""


@dataclass(frozen=True)
class Sampled:
    """What the sample of one table has shown."""

    table: str
    rows: int
    """In the table."""
    sampled: int
    without: int
    """Rows that refer to no image."""
    opened: int
    refused: dict[str, int]
    """Class → images that cannot be had, or are none."""
    examples: dict[str, str]
    """Class → what was wrong with the first of it."""
    bytes: int
    """Of an image, on average."""
    width: int
    height: int
    """Of the median image, in pixels."""
    embedded: int
    images_per_second: float | None
    """Of this machine, reading, decoding and the model together; None where none could be embedded."""
    seconds: float | None
    """What embedding all rows takes at that."""
    dollars: float | None
    """What that costs, where an hour has a price."""
    row_cosine: float | None = None
    """Of a model that computes with fewer bits: the lowest cosine of an image's vector to the one with all of them."""

    def lines(self) -> Iterator[str]:
        """As people read it."""
        tried = self.sampled - self.without
        without = f"; {counted(self.without, 'more row')} without a reference" if self.without else ""
        yield f"{self.table}: {self.opened} of {counted(tried, 'sampled image')} can be opened{without}"
        for kind, number in self.refused.items():
            share = number / max(tried, 1)
            of_all = f"about {round(share * self.rows):,} of all" if self.rows > self.sampled else ""
            yield f"  {kind}: {number}{f' ({of_all})' if of_all else ''}; the first: {self.examples[kind]}"
        if self.opened:
            yield f"  median size {self.width}×{self.height}, {self.bytes / 1e6:,.2f} MB on average"
        if self.images_per_second and self.seconds is not None:
            price = f" and ${self.dollars:,.2f}" if self.dollars is not None else ""
            speed = f"{self.images_per_second:,.1f} a second, measured on {counted(self.embedded, 'image')}"
            yield f"  this machine embeds {speed}: about {duration(self.seconds)}{price} for all rows"
        if self.row_cosine is not None:
            yield f"  the lowest cosine of a vector to the one in float32 is {self.row_cosine:.4f}, by a few images"


def estimate(connection: Connection, draft: Draft, statements: list[str]) -> Planned:
    """The plan as it is shown; ``statements`` are those that change something."""
    plan = draft.plan
    assert plan.request.embedder
    embedder = open_embedder(plan.request.embedder)
    samples = [_sampled(connection, target, embedder, plan) for target in plan.targets]
    return Planned(
        plan,
        _listing(plan),
        [look for _, look in samples],
        statements,
        draft.problems,
        [*draft.warnings, *warnings(s for s, _ in samples)],
        least_seconds=sum(s.seconds or 0.0 for s, _ in samples),
        layouts=[layout for target in plan.targets for layout in layout_costs(connection, target)],
        more=[
            model(plan.request.embedder, embedder),
            *(More("images", asdict(sampled), list(sampled.lines())) for sampled, _ in samples),
        ],
    )


def _listing(plan: Plan) -> Listing:
    rows: list[tuple[str | None, ...]] = []
    for target in plan.targets:
        place, table = target.place, f"{target.place.schema}.{target.place.table}"
        count, dims = f"{target.collection.count:,}", str(target.dimensions or "")
        image, functions = place.live.text, ", ".join(place.functions) or None
        layout, metric = plan.request.own["layout"], place.layout.metric
        rows.append((table, place.new_column, layout, count, dims, metric, image, functions))
    return Listing(("table", "new column", "layout", "rows", "dims", "metric", "image", "functions"), rows)


def model(name: str, embedder: Embedder) -> More:
    """How a model makes of images what it does, and what its publisher allows."""
    space, licence = embedder.space, embedder.licence
    lengths = "normalized" if space.normalized else "not normalized"
    lines = [f"{name}: {space.preprocessing or 'preprocessing of its own'}; vectors {lengths}"]
    values = {
        "name": name,
        "space": space.fingerprint,
        "preprocessing": space.preprocessing,
        "revision": space.revision,
        "licence": licence,
    }
    return More("model", values, [*lines, *([f"  licence of its weights: {licence}"] if licence else [])])


def warnings(samples: Iterable[Sampled]) -> Iterator[str]:
    """That nothing can be read, which is nobody's wish."""
    for sampled in samples:
        if sampled.refused and not sampled.opened:
            yield f"{sampled.table}: none of the sampled images can be opened: check image, images.root and images.allow_hosts"


def _sampled(connection: Connection, target: Target[LivePlace], embedder: Embedder, plan: Plan) -> tuple[Sampled, Look]:
    began = time.perf_counter()
    rows = _documents(connection, target)
    reading = (time.perf_counter() - began) / max(len(rows), 1)
    sampled = sample(f"{target.place.schema}.{target.place.table}", target, rows, embedder, plan)
    size = float(np.mean([len(document.encode()) for document in rows if document is not None] or [0]))
    return sampled, Look(len(rows), {}, 0, sampled.without, size, reading)


def sample(name: str, target: Target[Any], rows: Sequence[str | None], embedder: Embedder, plan: Plan) -> Sampled:
    """What the images show that these ``rows`` of a target refer to, by whose ``name`` people know it."""
    hourly_price: float | None = plan.request.own.get("hourly_price")
    documents = [document for document in rows if document is not None]
    began = time.perf_counter()
    opened = _opened(target.content, documents, embedder)
    opening = (time.perf_counter() - began) / max(len(documents), 1)
    items, sizes = opened.items, opened.sizes
    embedded, spent, rejected = _embedded(embedder, items)
    errors = [*opened.errors, *rejected]
    refused = Counter(error.kind for error in errors)
    examples = {error.kind: error.message for error in reversed(errors)}
    cosines = row_cosines(plan.request.embedder or "", items[:COMPARED])
    speed = 1 / (spent / embedded + opening) if embedded else None
    seconds = target.rows / speed if speed else None
    return Sampled(
        table=name,
        rows=target.rows,
        sampled=len(rows),
        without=len(rows) - len(documents),
        opened=len(documents) - refused.total(),
        refused=dict(refused),
        examples=examples,
        bytes=round(opened.bytes / len(sizes)) if sizes else 0,
        width=int(np.median([size.width for size in sizes])) if sizes else 0,
        height=int(np.median([size.height for size in sizes])) if sizes else 0,
        embedded=embedded,
        images_per_second=speed,
        seconds=seconds,
        dollars=seconds / 3600 * hourly_price if seconds is not None and hourly_price is not None else None,
        row_cosine=float(cosines.min()) if cosines is not None and cosines.size else None,
    )


def _documents(connection: Connection, target: Target[LivePlace]) -> list[str | None]:
    """Of rows that are spread over the table."""
    live, most = target.place.live, min(SAMPLE, target.limit or SAMPLE)
    pages = min(100.0, 100.0 * 4 * most / max(target.collection.count, 1))
    spread = sql.SQL(" TABLESAMPLE SYSTEM ({})").format(sql.Literal(pages)) if pages < 100 else sql.SQL("")
    query = sql.SQL("SELECT {} FROM {}{} LIMIT {}").format(
        sql.SQL(live.document()), live.identifier, spread, sql.Literal(most)
    )
    with pace.turn(connection):
        return [document for (document,) in connection.execute(query).fetchall()]


@dataclass
class _Opened:
    """What stands behind documents, each once."""

    sizes: list[Size] = field(default_factory=list)
    bytes: int = 0
    """Of all that have a size."""
    errors: list[RowError] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    """The first of them, as many as KEPT."""


def _opened(content: Content, documents: list[str], embedder: Embedder) -> _Opened:
    opened, room = _Opened(), KEPT
    for part in content.slices(documents, lambda items: keys_of(embedder, items)):
        opened.errors += part.refused.values()
        first = list(dict(zip(reversed(part.keys), reversed(range(len(part.keys))), strict=True)).values())
        for item in part.open(sorted(first)):
            size = item if isinstance(item, RowError) else measure(item) if isinstance(item, bytes) else None
            if isinstance(size, RowError):
                opened.errors.append(size)
            elif isinstance(size, Size) and isinstance(item, bytes):
                opened.sizes.append(size)
                opened.bytes += len(item)
                if room > 0:
                    opened.items.append(item)
                    room -= len(item)
    return opened


def _embedded(embedder: Embedder, items: list[Item]) -> tuple[int, float, list[RowError]]:
    """How many were embedded, in how many seconds, and what the model refused. The first few are not measured: with them a model
    warms up."""
    refused = list(embedder.embed(items[:2]).rejected.values())
    at, step, spent = 2, 4, 0.0
    while at < len(items) and spent < LONGEST / 2:
        began = time.perf_counter()
        refused += embedder.embed(items[at : at + step]).rejected.values()
        spent += time.perf_counter() - began
        at, step = at + step, step * 2
    return max(0, min(at, len(items)) - 2), spent, refused
