"""The kill test: ``kill -9`` of vecferry at random moments of all stages, restarted each time, against an undisturbed run.

Every cycle migrates the same Chroma directory into a database of its own with the same run_id, through run, cutover,
rollback, cutover and, after the source changed, a sync. Processes are killed at moments drawn from the time that the
undisturbed run spent in each stage. After every step the database must be what the undisturbed run left there.

    python -m tests.kill.chaos --kills 100 --seed 1
"""

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from tests.kill.campaign import Chaos, Say, Servers, options, servers
from tests.kill.chroma_source import Source, make_source
from tests.kill.moments import BACK, BUILD, RUN, SWITCH, Spent, Step, drawn, hit, started
from tests.kill.pictures import Picture, differences, picture
from tests.kill.processes import Place

SYNC = "chaos-sync"
COLD = 0.2
"""Share of the starts that are the installed command, interpreter and imports and all. The others are forked from an
interpreter that has imported already, which leaves time for more kills."""
TARGETS = 2


def steps(chroma_path: Path, batch_rows: int) -> list[Step]:
    """The life of a run: its last step finds the source changed."""
    migrate = (
        "run",
        "chroma-to-pgvector",
        "-p",
        f"chroma.path={chroma_path}",
        "-p",
        f"batch_rows={batch_rows}",
        "--run-id",
    )
    return [
        Step("run", (*migrate, RUN), BUILD),
        Step("cutover", ("cutover", RUN), SWITCH),
        Step("rollback", ("rollback", RUN), BACK),
        Step("cutover again", ("cutover", RUN), SWITCH),
        Step("sync", (*migrate, SYNC), (("begin", 1), ("catch up", 3), ("verify", 1), ("cutover", 1)), SYNC),
    ]


@dataclass
class Disturbed(Chaos):
    """Cycles that are compared with an undisturbed one."""

    spent: Spent = field(default_factory=dict)
    """By the undisturbed one."""
    expected: dict[str, Picture] = field(default_factory=dict)
    """What each of its steps left."""
    starts: int = 0
    cycles: int = 0
    parts: int = 0
    """Half-written files that killed processes left."""
    orphans: int = 0
    """Servers of killed processes that the next start ended."""


def attempt(chaos: Disturbed, place: Place, step: Step, stage: str | None) -> bool:
    """Starts the step's command and kills it once it has been in ``stage`` for a random while; None lets it finish.

    Returns whether it finished.
    """
    chaos.starts += 1
    in_transaction = stage in ("cutover", "rollback") and step.name != "sync" and chaos.random.random() < 0.6
    # The cycle that is measured starts warm, as most do: a cold start would count imports as the first stage.
    measured = stage is None and step.name not in chaos.expected
    cold = not measured and chaos.random.random() < COLD
    with _reader(place, in_transaction), started(place, step, TARGETS, cold) as watched:
        where = hit(watched, stage, chaos.random, chaos.spent, measuring=measured, in_transaction=in_transaction)
    with place.connection() as connection:
        if repaired := _repaired(connection):
            chaos.different.append(f"{step.name}: catch up had to repair {repaired} rows of an unchanged source")
    finished = chaos.finished(place, watched, where)
    chaos.inside += in_transaction and not finished
    return finished


@contextmanager
def _reader(place: Place, wanted: bool) -> Iterator[None]:
    """Somebody who reads the last table for long: a switch has renamed the others by then and waits for this one."""
    if not wanted:
        yield
        return
    with psycopg.connect(place.url, application_name="chaos reader") as connection:
        row = connection.execute(
            "SELECT table_schema, table_name FROM vecferry.relation WHERE target = %s", (TARGETS - 1,)
        ).fetchone()
        assert row
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(*row)))
        yield


def _repaired(connection: "psycopg.Connection[Any]") -> int:
    """Rows that catching up changed although the source was still: the load lost or garbled them."""
    if connection.execute("SELECT to_regclass('vecferry.batch')").fetchone() == (None,):
        return 0
    row = connection.execute(
        "SELECT coalesce(sum(rows), 0) FROM vecferry.batch WHERE stage = 'catch_up' AND run_id = %s", (RUN,)
    ).fetchone()
    return int(row[0]) if row else 0


def cycle(chaos: Disturbed, place: Place, life: list[Step], source: Source, wanted: int, say: Say) -> None:
    """One run through its whole life with at most ``wanted`` kills; every step ends as the undisturbed one did."""
    source.reset()
    stages = drawn(chaos.random, life, wanted)
    for step in life:
        if step.name == "sync":
            source.change()
        if not any(attempt(chaos, place, step, stage) for stage in stages[step.name]):
            assert attempt(chaos, place, step, None)
        _compare(chaos, place, step, say)
    chaos.cycles += 1


def _compare(chaos: Disturbed, place: Place, step: Step, say: Say) -> None:
    left = list(place.home.rglob("*.part"))
    chaos.parts += len(left)
    for path in left:
        path.unlink()
    result = picture(place)
    if step.name not in chaos.expected:
        chaos.expected[step.name] = result
        return
    lines = differences(chaos.expected[step.name], result)
    chaos.compared += 1
    chaos.different += [f"after {step.name}: {line}" for line in lines]
    say(f"{step.name:<14} {chaos.kills.total():>4} kills so far, {len(lines)} differences")


def without_server(chaos: Disturbed, place: Place, life: list[Step], source: Source, stages: list[str]) -> None:
    """The first step on Prefect's ephemeral server: what a killed process leaves of it is ended by the next start."""
    source.reset()
    for stage in [*stages, None]:
        left = _servers(place)
        finished = attempt(chaos, place, life[0], stage)
        alive = [server for server in left if server.is_running()]
        chaos.orphans += len(left) - len(alive)
        chaos.different += [f"the orphaned server {server.pid} outlived the next start" for server in alive]
        for server in alive:
            server.kill()
        if finished:
            break
    _compare(chaos, place, life[0], lambda _: None)


def _servers(place: Place) -> list[psutil.Process]:
    """The live servers that a killed process recorded."""
    result = []
    for record in place.home.glob("*.prefect-server.json"):
        for pid, created in json.loads(record.read_text())["servers"]:
            if psutil.pid_exists(pid) and abs(psutil.Process(pid).create_time() - created) < 1:
                result.append(psutil.Process(pid))
    return result


def campaign(chaos: Disturbed, kills: int, servers: Servers, life: list[Step], source: Source) -> None:
    """The undisturbed cycle, killed ones, and a few kills of processes that each have an ephemeral Prefect server."""
    servers.say("the undisturbed cycle")
    cycle(chaos, servers.place("undisturbed"), life, source, 0, servers.say)
    alone = ["snapshot", "verify"][: kills // 10]
    while (left := kills - len(alone) - chaos.kills.total()) > 0:
        cycle(chaos, servers.place(f"cycle_{chaos.cycles}"), life, source, left, servers.say)
    if alone:
        servers.say("each process with an ephemeral Prefect server")
        without_server(chaos, replace(servers.place("ephemeral"), api=None), life, source, alone)


def main() -> int:
    parser = options("Kill vecferry at random moments and compare what comes of it.", rows=4_000)
    parser.add_argument("--dimensions", type=int, default=64)
    asked = parser.parse_args()
    chaos = Disturbed(random.Random(asked.seed))
    with servers(asked.seed) as own:
        source = make_source(own.folder, asked.rows, asked.dimensions)
        campaign(chaos, asked.kills, own, steps(source.path, max(1, asked.rows // 40)), source)
    chaos.show("inside an open switch")
    print(f"{chaos.starts} processes, {chaos.cycles} cycles with the undisturbed one")
    print(f"orphaned Prefect servers that the next start ended: {chaos.orphans}; half-written files: {chaos.parts}")
    return chaos.status(asked.kills)


if __name__ == "__main__":
    sys.exit(main())
