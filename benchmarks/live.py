"""text-384-to-1536: how fast rows get their vectors beside others, what a reader notices, limits, memory."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql

from benchmarks import fixtures, peers, reader, texts
from benchmarks.command import Ran, vecferry
from benchmarks.elsewhere import Enter, elsewhere
from benchmarks.figures import Figure
from benchmarks.turns import WORKERS, environment, in_turns, slices, timed, together
from flows.forms.text_384_to_1536 import Text384To1536
from tasks import load, snapshot
from tasks.begin import begin
from tasks.embedders.registry import open_embedder
from tasks.runs import checkpoints, dataset
from tasks.runs.details import Cut
from tasks.runs.run import open_run
from tasks.runs.vectors import keys_of
from tests.helpers.openai_server import Call, OpenAIServer, openai_server
from tests.helpers.servers import prefect_server

MODEL = "openai/text-embedding-3-small"
SECONDS_BEFORE = 20.0
"""For which a reader is watched before anything begins."""
LIMITED_ROWS = 20_000


def migrate(
    url: str, base_url: str, table: str, layout: str, *more: str, enter: Enter | None = None, **variables: str
) -> tuple[str, Ran]:
    """Runs the migration of a table into a fresh VECFERRY_HOME, to its end: vectors, index, verification."""
    name = f"{table}-{layout}-{time.time_ns()}"
    # The server's vectors mean nothing, and an index finds fewer neighbours among such.
    options = [f'targets=[{{"table": "{table}", "text": "content"}}]', f"layout={layout}", "gates.min_recall=0", *more]
    arguments = ["run", "text-384-to-1536", "--run-id", name, *(part for option in options for part in ("-p", option))]
    return name, vecferry(arguments, name, url, environment=_key(base_url) | variables, enter=enter)


def speed(url: str, base_url: str, rows: int) -> Iterator[Figure]:
    """Rows a second until every row has its vector, start-up included, as a ratio to what others do with the same table:
    one with an index and a search function on its old vectors. Prefect's server runs already, as it does in production,
    where there is one; how long the command takes to start its own is told too."""
    own = 0.0
    with prefect_server(fixtures.PLACE.absolute() / "prefect") as api:
        for layout, count in (("side_table", rows), ("column", rows // 5)):
            texts.make_table(url, "docs", count)
            name, ran = migrate(url, base_url, "docs", layout, PREFECT_API_URL=api)
            vecferry(["rollback", name], name, url, keep=True, environment=_key(base_url))
            own = own or ran.spans["load"][1]
            parts = ", ".join(f"{stage} {ran.took(stage):.1f} s" for stage in ("snapshot", "load", "index", "verify"))
            note = f"every row has its vector after {ran.spans['load'][1]:.1f} s; {parts}; whole {ran.seconds:.0f} s"
            yield Figure(f"rows/s, {layout}", count, count / ran.spans["load"][1], note=note)
    texts.make_table(url, "docs", rows)
    name, ran = migrate(url, base_url, "docs", "side_table")
    vecferry(["rollback", name], name, url, keep=True, environment=_key(base_url))
    note = f"with a Prefect server of its own, which is there after {ran.spans['list'][0]:.1f} s"
    yield Figure("rows/s, side_table", rows, rows / ran.spans["load"][1], note=note)
    for peer, limit in ((peers.pgai, 3.0), (peers.vecshift, 15.0)):
        seconds = peer(url, base_url, rows)
        note = f"{peer.__name__} {rows / seconds:,.0f} rows/s, vecferry {rows / own:,.0f}"
        yield Figure(f"speed to {peer.__name__}, side_table", rows, seconds / own, limit, "≥", note=note)


def copy(url: str, base_url: str, rows: int) -> Figure:
    """Loads the side table with vectors that are bought already, and the same rows with a bare COPY."""
    home = str(fixtures.PLACE.absolute() / "home")
    texts.make_table(url, "docs", rows)
    name, _ = migrate(url, base_url, "docs", "side_table")
    vecferry(["rollback", name], name, url, keep=True, environment=_key(base_url))
    with environment(DATABASE_URL=url, VECFERRY_HOME=home, **_key(base_url)):
        target = {"table": "docs", "text": "content"}
        parameters = Text384To1536.model_validate({"targets": [target], "layout": "side_table"})
        second = f"again-{time.time_ns()}"
        begin(parameters.request(), second, {"source"})
        run, embedder = open_run(second, parameters.database), open_embedder(MODEL)
        load.expand(run)
        snapshot.list_ids(run, 0)
        with run.connection() as connection:
            snapshot.snapshot(run, [b.number for b in checkpoints.batches(connection, second, "snapshot")])
            parts = {b.number: b.detail.written for b in checkpoints.of(connection, second, Cut)}
        load.prepare(run)
        with run.kept_open(), psycopg.connect(url, autocommit=True) as connection, run.connection() as kept:
            register_vector(connection)
            connection.execute(
                "CREATE TABLE bare (id bigint NOT NULL, content_hash bytea NOT NULL, embedding vector(1536))"
            )
            taken: list[float] = []

            def bare(chunks: list[list[int]]) -> None:
                ready: list[Any] = []
                for number in (number for chunk in chunks for number in chunk):
                    part = dataset.read_part(run.path("snapshot"), parts[number])
                    keys = keys_of(embedder, part["document"].to_pylist())
                    ready += zip(
                        map(int, part["id"].to_pylist()),
                        part["content_hash"].to_pylist(),
                        _vectors(len(keys)),
                        strict=True,
                    )
                taken.append(timed(lambda: _copy(connection, ready)))

            (own, _) = in_turns(
                slices(sorted(parts)),
                lambda chunks: together([partial(load.load, run, chunk) for chunk in chunks], WORKERS),
                bare,
            )
            connection.execute("DROP TABLE bare")
            bought = kept.execute("SELECT bought, reused FROM vecferry.run WHERE run_id = %s", (second,)).fetchone()
            assert bought == (0, rows), bought
    vecferry(["rollback", second], second, url, keep=True, environment=_key(base_url))
    one = sum(taken)
    note = f"{rows / own:,.0f} rows/s, bare COPY {rows / one:,.0f}; no vector is bought"
    return Figure("side_table load: speed to a bare binary COPY", rows, one / own, 0.7, "≥", note=note)


def readers(rows: int) -> Iterator[Figure]:
    """What a reader notices, on a server whose memory holds the table and its index, as those have that are searched:
    of both layouts, and of one where provider and command want the same processors as the server."""
    with fixtures.postgres("postgres-readers", shared_buffers="1GB") as url:
        with elsewhere() as enter, texts.provider(enter) as base_url:
            for layout in ("side_table", "column"):
                yield from reader_of(url, base_url, rows, layout, enter)
        with texts.provider() as base_url:
            yield from reader_of(url, base_url, rows, "side_table")


def reader_of(url: str, base_url: str, rows: int, layout: str, enter: Enter | None = None) -> Iterator[Figure]:
    """The 99th percentile of a search of match_bora_docs while the table is migrated, to that before."""
    texts.make_table(url, "bora_docs", rows)
    file = fixtures.PLACE.absolute() / "reader.txt"
    with reader.reading(url, file):
        time.sleep(3.0)  # until its connection is warm
        began = time.time()
        time.sleep(SECONDS_BEFORE)
        started = time.time()
        name, ran = migrate(url, base_url, "bora_docs", layout, enter=enter)
        switching = time.time()
        switch = vecferry(
            ["cutover", name, "-p", "gates.min_recall=0"],
            name,
            url,
            keep=True,
            environment=_key(base_url),
            enter=enter,
        )
        switched = time.time()
    for command in (["rollback", name], ["contract", name, "--yes"]):
        vecferry(command, name, url, keep=True, environment=_key(base_url))
    before = np.percentile(reader.latencies(file, began, started), 99)
    phases = {
        "backfill": (started + ran.spans["list"][0], started + ran.spans["load"][1], 2.0),
        "index": (started + ran.spans["index"][0], started + ran.spans["index"][1], None),
        "cutover": (switching, switched, 2.0),
    }
    for phase, (start, end, limit) in phases.items():
        taken = reader.latencies(file, start, end)
        note = f"{np.percentile(taken, 99) * 1000:.1f} ms, before {before * 1000:.1f} ms; {len(taken)} searches"
        seconds = switch.seconds if phase == "cutover" else end - start
        note += f" in {seconds:.0f} s"
        ratio = float(np.percentile(taken, 99) / before)
        if enter:
            yield Figure(f"reader's p99 during {phase}, {layout}", rows, ratio, limit, note=note)
        else:
            yield Figure(f"reader's p99 during {phase}, {layout}, all on the same processors", rows, ratio, note=note)


def memory(url: str, base_url: str, sizes: list[int]) -> Iterator[Figure]:
    """Peak memory of the vecferry process, and what it grows by from the fewest to the most rows."""
    peaks = {}
    for rows in sizes:
        texts.make_table(url, "docs", rows)
        name, ran = migrate(url, base_url, "docs", "side_table")
        vecferry(["rollback", name], name, url, keep=True, environment=_key(base_url))
        peaks[rows] = ran.peak
        yield Figure("peak memory of text-384-to-1536", rows, ran.peak, unit=" MB")
    least, most = min(peaks), max(peaks)
    note = f"peak memory to that at {least:,} rows"
    yield Figure("growth of peak memory of text-384-to-1536", most, peaks[most] / peaks[least], 1.1, note=note)


def limits(url: str) -> Iterator[Figure]:
    """How much of an account's limits is used, where tokens are the tighter one and where requests are."""
    for tighter, requests, tokens, batch_rows in (("tokens", 3_000, 600_000, 2_000), ("requests", 15, 10_000_000, 500)):
        with openai_server() as server:
            server.limit(requests, tokens)
            texts.make_table(url, "docs", LIMITED_ROWS)
            name, _ = migrate(url, server.base_url, "docs", "side_table", f"batch_rows={batch_rows}")
            vecferry(["rollback", name], name, url, keep=True, environment=_key(server.base_url))
            yield from _used(server, tighter, requests if tighter == "requests" else tokens)


def _used(server: OpenAIServer, tighter: str, per_minute: float) -> Iterator[Figure]:
    """Of what was there: a minute's worth at the start, and what came back until the last request."""
    within: list[Call] = []
    for call in sorted(server.answered()[1:], key=lambda call: call.at):  # the first is the probe
        if sum(len(c.inputs) for c in within) < LIMITED_ROWS:  # verification asks again, when the index is built
            within.append(call)
    first, last = within[0].at, within[-1].at
    used = len(within) if tighter == "requests" else sum(call.tokens for call in within)
    there = per_minute * (1 + (last - first) / 60)
    late = [call for call in server.answered(429) if call.at > first + 60]
    note = f"{used:,} of {there:,.0f} in {last - first:.0f} s; {len(server.answered(429))} answers of 429 in all"
    yield Figure(f"use of the {tighter} that are allowed", LIMITED_ROWS, 100 * used / there, 95, "≥", " %", note)
    yield Figure(f"429s after the first minute, {tighter}", LIMITED_ROWS, len(late), 0)


def _key(base_url: str) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": base_url}


def _vectors(rows: int) -> list[np.ndarray]:
    return list(np.random.default_rng(rows).standard_normal((rows, 1536)).astype(np.float32))


def _copy(connection: "psycopg.Connection[Any]", rows: list[Any]) -> None:
    command = sql.SQL("COPY bare FROM STDIN (FORMAT BINARY)")
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(command) as copying:
        copying.set_types(["int8", "bytea", "vector"])
        for row in rows:
            copying.write_row(row)
