"""Snapshot and load of siglip-to-clip beside a bare version of the same work, and the memory of the whole.

Qdrant is the tests' own server over Qdrant's segment engine, or the real one that VECFERRY_TEST_QDRANT_URL names.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from benchmarks import fixtures
from benchmarks.command import vecferry
from benchmarks.figures import Figure
from benchmarks.turns import WORKERS, environment, in_turns, slices, timed, together
from flows.forms.siglip_to_clip import SiglipToClip
from tasks import load, snapshot
from tasks.begin import begin
from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import checkpoints, dataset
from tasks.runs.details import Cut
from tasks.runs.run import Run, open_run
from tests.helpers.qdrant import qdrant_for_tests

ROWS, DIMENSIONS, FEW = 20_000, 1_024, 10_000
NAME, BARE = "image_chunks", "bare"
PAGE = 1_000
"""Points that the bare scroll reads at once, as the guide does it."""
BATCHES = (64, 500)
"""Points that ``upload_points`` sends at once: its default, and what is faster."""


def points(url: str) -> Iterator[Figure]:
    """The figures; the ledger lies in the database at ``url``."""
    with _qdrant() as (client, address):
        _fill(client, ROWS)
        home = fixtures.PLACE.absolute() / "home-points"
        shutil.rmtree(home, ignore_errors=True)
        with environment(DATABASE_URL=url, VECFERRY_HOME=str(home)):
            run = _begun(address)
            yield _snapshot(run, client)
            yield from _load(run, client)
        shutil.rmtree(home, ignore_errors=True)
    yield from _memory(url)


def _begun(address: str) -> Run:
    given = {"qdrant": {"url": address}, "content": "text", "text": "caption", "embedder": f"hashing/{DIMENSIONS}"}
    form = SiglipToClip.model_validate(
        {**given, "strategy": "alias", "new_collection": "new", "database": "DATABASE_URL"}
    )
    run_id = f"points-{time.time_ns()}"
    begin(form.request(), run_id, {"source"})
    return open_run(run_id, form.database)


def _snapshot(run: Run, client: QdrantClient) -> Figure:
    """Takes the snapshot, and scrolls over the same points with payloads and vectors."""
    seconds = timed(lambda: snapshot.list_ids(run, 0))
    with run.connection() as connection:
        batches = checkpoints.of(connection, run.run_id, Cut)
    first = {b.number: b.detail.group * run.plan.request.batch_rows for b in batches}

    def bare(chunks: list[list[int]]) -> None:
        for number in (number for chunk in chunks for number in chunk):
            after: Any = first[number]
            for _ in range(run.plan.request.batch_rows // PAGE):
                if after is not None:
                    _, after = client.scroll(NAME, limit=PAGE, offset=after, with_payload=True, with_vectors=True)

    own, one = in_turns(
        slices([b.number for b in batches]),
        lambda chunks: together([partial(snapshot.snapshot, run, chunk) for chunk in chunks], WORKERS),
        bare,
    )
    own += seconds + timed(lambda: snapshot.finish(run))
    speed = f"{ROWS / own:,.0f} points/s, bare scroll {ROWS / one:,.0f}; {DIMENSIONS} dimensions"
    return Figure("points: snapshot to a bare scroll", ROWS, one / own, 0.8, "≥", note=speed)


def _load(run: Run, client: QdrantClient) -> Iterator[Figure]:
    """Loads the snapshot, what the model takes left out, and uploads the same points, that lie ready in memory."""
    load.expand(run)
    load.prepare(run)
    with run.connection() as connection:
        parts = {b.number: b.detail.written for b in checkpoints.of(connection, run.run_id, Cut)}
    model = HashingEmbedder(DIMENSIONS)
    for size in BATCHES:
        client.create_collection(
            f"{BARE}_{size}",
            models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE),
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
        )
    seconds: dict[int, float] = dict.fromkeys(BATCHES, 0.0)

    def bare(size: int, chunks: list[list[int]]) -> None:
        for number in (number for chunk in chunks for number in chunk):
            page = dataset.read_part(run.path("snapshot"), parts[number])
            rows = model.embed(page.column("document").to_pylist()).whole.tolist()
            names = map(int, page.column("id").to_pylist())
            ready = [models.PointStruct(id=n, vector=v, payload=_payload(n)) for n, v in zip(names, rows, strict=True)]
            seconds[size] += timed(partial(client.upload_points, f"{BARE}_{size}", ready, batch_size=size, wait=True))

    def own(chunks: list[list[int]]) -> None:
        together([partial(load.load, run, chunk) for chunk in chunks], WORKERS)

    def make(chunks: list[list[int]]) -> None:
        """What of ``own`` is the model, by as many workers: it is none of loading."""
        together([partial(made, chunk) for chunk in chunks], WORKERS)

    def made(numbers: list[int]) -> None:
        for number in numbers:
            model.embed(dataset.read_part(run.path("snapshot"), parts[number]).column("document").to_pylist())

    bares: list[Callable[[Any], None]] = [partial(bare, size) for size in BATCHES]
    with run.kept_open():
        loaded, embedded, *_ = in_turns(slices(sorted(parts)), own, make, *bares)
    loaded -= embedded
    best = min(seconds, key=lambda size: seconds[size])
    speeds = ", ".join(f"{size} at once {ROWS / took:,.0f}" for size, took in seconds.items())
    note = f"{ROWS / loaded:,.0f} points/s, bare upload_points with wait: {speeds}"
    yield Figure("points: load to a bare upload_points", ROWS, seconds[best] / loaded, 0.8, "≥", note=note)


def _memory(url: str) -> Iterator[Figure]:
    """Peak memory of the whole run, for few points and for many."""
    peaks: dict[int, float] = {}
    for rows in (FEW, ROWS):
        with _qdrant() as (client, address):
            _fill(client, rows)
            name = f"points-{rows}-{time.time_ns()}"
            given = (
                f"qdrant.url={address}",
                "content=text",
                "text=caption",
                f"embedder=hashing/{DIMENSIONS}",
                "database=DATABASE_URL",
            )
            options = [part for option in given for part in ("-p", option)]
            peaks[rows] = vecferry(["run", "siglip-to-clip", "--run-id", name, *options], name, url).peak
            yield Figure("points: peak memory", rows, peaks[rows], 600.0 if rows == ROWS else None, unit=" MB")
    note = f"peak memory to that at {FEW:,} points"
    yield Figure("points: growth of peak memory", ROWS, peaks[ROWS] / peaks[FEW], 1.1, note=note)


@contextmanager
def _qdrant() -> Iterator[tuple[QdrantClient, str]]:
    folder = Path(fixtures.PLACE.absolute(), "qdrant")
    shutil.rmtree(folder, ignore_errors=True)
    with qdrant_for_tests(folder) as server:
        yield server.client(), server.url
    shutil.rmtree(folder, ignore_errors=True)


def _fill(client: QdrantClient, rows: int) -> None:
    """The collection, with so many points."""
    client.create_collection(NAME, models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE))
    random = np.random.default_rng(3)
    for start in range(0, rows, PAGE):
        made = random.standard_normal((PAGE, DIMENSIONS)).astype(np.float32).tolist()
        batch = [models.PointStruct(id=start + n, vector=v, payload=_payload(start + n)) for n, v in enumerate(made)]
        client.upload_points(NAME, batch, batch_size=500, wait=True)


def _payload(number: int) -> dict[str, Any]:
    words = " ".join(f"word{(number * 31 + n * n) % 4_999}" for n in range(12))
    return {
        "caption": f"picture {number}: {words}",
        "document_id": number // 7,
        "image_path": f"{number}.png",
        "image_type": "photo",
    }
