"""Kills vecferry with SIGKILL at random moments while others write to the Qdrant collection it migrates and search it, and compares
point by point with what they have written.

``python -m tests.kill.chaos_qdrant --kills 100`` runs it whole, in all three places in turn, over texts and images.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from qdrant_client import models

from tests.helpers.captioned import NAME
from tests.helpers.counting import counted
from tests.helpers.memory import memory_folder
from tests.helpers.qdrant_application import LIVES, Application
from tests.helpers.qdrant_readers import Readers
from tests.helpers.qdrant_server import QdrantServer, qdrant_server
from tests.helpers.qdrant_writers import Writers
from tests.helpers.servers import prefect_server
from tests.kill.chaos import BACK, BUILD, ORDER, RUN, SWITCH, Place, Step, hit, new_database, postgres_server

DATABASE = ("-p", "database=DATABASE_URL")
INSIDE = 0.6
"""Share of the kills of a switch that hit it after Qdrant has changed and before the ledger knows."""
LAST = "contract"
"""The step before which all writers are done."""
THEIRS = "theirs"
"""A collection of somebody else's."""
REACHED = {"cutover": "cut_over", "rollback": "rolled_back", "contract": "contracted"}
"""What the ledger says of a run when that is done."""


def steps(application: Application, batch_rows: int) -> list[Step]:
    """The life of a run, and the kills of a cycle. Half of a small collection is replaced while it is verified: recall decides on
    nothing here, nor does what says nothing."""
    gates = {"min_recall": 0.3, "max_quarantined": 100_000, "max_deleted": 1}
    options = (*(part for name, value in gates.items() for part in ("-p", f"gates.{name}={value}")), *DATABASE)
    run = ("run", *application.asked(), "-p", f"batch_rows={batch_rows}", *options, "--run-id", RUN)
    return [
        Step("run", run, BUILD),
        Step("cutover", ("cutover", RUN, *options), SWITCH),
        Step("catch-up", ("catch-up", RUN, *DATABASE), (("begin", 1), ("catch up", 2))),
        Step("rollback", ("rollback", RUN, *DATABASE), BACK),
        Step("cutover again", ("cutover", RUN, *options), SWITCH),
        Step(LAST, ("contract", RUN, "-p", "rollback_days=0", *DATABASE), (("begin", 1), ("contract", 2))),
    ]


@dataclass
class Chaos:
    """What was done and found."""

    random: random.Random
    spent: dict[tuple[str, str], float] = field(default_factory=dict)
    """(step, stage) → the most seconds that a start which nobody killed spent there."""
    kills: Counter[str] = field(default_factory=Counter)
    inside: int = 0
    """Kills between Qdrant and the ledger."""
    gaps: int = 0
    """Those while a name meant nothing."""
    compared: int = 0
    wrote: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers to readers."""
    different: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """A place, and an application with its server."""

    place: Place
    application: Application
    server: QdrantServer

    def state(self) -> str | None:
        """Of the run, by the ledger."""
        with self.place.connection() as connection:
            if connection.execute("SELECT to_regclass('vecferry.run')").fetchone() == (None,):
                return None
            row = connection.execute("SELECT state FROM vecferry.run WHERE run_id = %s", (RUN,)).fetchone()
        return row[0] if row else None

    def done(self, stage: str) -> bool:
        """Whether Qdrant has the change that a switch, its way back or a contract makes."""
        if stage == "contract":
            return self.application.dropped()
        return self.application.switched() == (stage == "cutover") or self.application.in_gap()


def attempt(chaos: Chaos, scene: Scene, step: Step, stage: str | None = None) -> bool:
    """Starts the step's command and kills it once it has been in ``stage`` for a random while, or once Qdrant is changed; None lets it
    finish. Whether it finished."""
    place, command, spent = scene.place, step.name.split()[0], chaos.spent if stage else {}
    inside = stage in REACHED and chaos.random.random() < INSIDE and not scene.done(command)
    with place.connection() as connection, _gap(chaos, scene, inside and command == "cutover"):
        since = connection.execute("SELECT clock_timestamp()").fetchone()
        assert since
        process = place.start(*step.arguments, cold=False)
        try:
            if inside:
                where = str(stage)
                while process.poll() is None and not scene.done(command):
                    time.sleep(0.001)
                time.sleep(chaos.random.uniform(0, 0.1))
            else:
                where = hit(
                    chaos.random, spent, connection, step, stage, since[0], process, measuring=stage is None, targets=1
                )
        finally:
            process.kill()
            status = process.wait()
        if status == -9:
            chaos.kills[where] += 1
            chaos.inside += command in REACHED and scene.done(command) and scene.state() != REACHED[command]
            chaos.gaps += scene.application.in_gap()
    if status == -9:
        return False
    if status == 2 and step.name == "rollback" and "is rolled_back" in place.log[-400:]:
        return True
    if not stage:
        chaos.spent |= {which: max(seconds, chaos.spent.get(which, 0)) for which, seconds in spent.items()}
    if status:
        raise AssertionError(f"{scene.application.life}: {step.name} ended with {status}:\n{place.log[-3000:]}")
    return True


@contextmanager
def _gap(chaos: Chaos, scene: Scene, wanted: bool) -> Iterator[None]:
    """Now and then the server moves no alias while a collection's name is to change hands, so that a kill hits the gap."""
    if not (
        wanted and scene.application.pauses and NAME in scene.application.collections() and chaos.random.random() < 0.5
    ):
        yield
        return
    scene.server.fail("update_aliases", 503, 1 << 40)
    try:
        yield
    finally:
        scene.server.mend()


def elsewhere(chaos: Chaos, scene: Scene, step: Step) -> None:
    """The step while somebody else has the alias mean a collection of theirs: refused, and the alias left alone."""
    application, was = scene.application, scene.application.aliases().get(scene.application.alias)
    if THEIRS not in application.collections():
        application.client.create_collection(THEIRS, models.VectorParams(size=4, distance=models.Distance.COSINE))
    application.point(application.alias, THEIRS)
    process = scene.place.start(*step.arguments, cold=False)
    status = process.wait()
    means = application.aliases().get(application.alias)
    if means != THEIRS or not status:
        chaos.different.append(f"{application.life}: {step.name} moved an alias of somebody else's to {means}")
    application.point(application.alias, was)


def cycle(
    chaos: Chaos, scene: Scene, life: list[Step], kills: int, say: Callable[[str], None], *, rows: int = 300
) -> None:
    """One run through ``life``, people writing all the while, save where a name changes hands, and searching."""
    application = scene.application
    application.make(rows)
    planned = [(step.name, stage) for step in life for stage, count in step.kills for _ in range(count)]
    chosen = sorted(chaos.random.sample(range(len(planned)), min(kills, len(planned))))
    stages = {step.name: [planned[i][1] for i in chosen if planned[i][0] == step.name] for step in life}
    people, readers = Writers(application), Readers(application)
    catch_up = Step("catch-up", ("catch-up", RUN, *DATABASE), ())

    def through(step: Step) -> None:
        for stage in stages[step.name]:
            if attempt(chaos, scene, step, stage):
                return
        attempt(chaos, scene, step)

    def compare(step: Step, new: bool) -> None:
        if new:
            attempt(chaos, scene, catch_up)
        result = [f"{application.life}, after {step.name}: {line}" for line in application.faults(new)]
        for line in result[:5]:
            say(f"DIFFERENT  {line}")
        chaos.different += result
        chaos.compared += 1

    def told(step: Step) -> None:
        counts = f"{len(chaos.different)} differences, {len(chaos.wrong) + len(readers.wrong)} wrong answers"
        say(f"{application.life!s:<36} {step.name:<14} {chaos.kills.total()} kills so far, {counts}")

    with readers.reading():
        with people.writing():
            for step in life:
                if step.name == LAST:
                    break
                with people.pausing(application.pauses and step.name.split()[0] in REACHED):
                    if application.life.strategy == "alias" and step.name in ("cutover", "rollback"):
                        with people.pausing():
                            elsewhere(chaos, scene, step)
                    through(step)
                people.some()
                with people.pausing():
                    compare(step, new=step.name != "rollback")
                told(step)
        if life[-1].name == LAST:
            attempt(chaos, scene, catch_up)
            through(life[-1])
            application.contracted = True
            compare(life[-1], new=not application.beside)
            told(life[-1])
    twice = counted(scene.place.home).twice if application.life.content == "image" else []
    chaos.different += [f"{application.life}: {item} was made twice, though it was kept" for item in twice]
    chaos.wrote += people.wrote
    chaos.asked += readers.asked
    chaos.wrong += [f"{application.life}, {line}" for line in readers.wrong]


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill vecferry at random moments while others write to its collection."
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--lives", default="", help="those whose name has this in it")
    options = parser.parse_args()
    chaos, started = Chaos(random.Random(options.seed)), time.monotonic()
    lives = [life for life in LIVES if options.lives in str(life)]

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.0f} s  {line}", flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="vecferry-chaos-") as name,
        postgres_server(Path(name, "postgres")) as server,
        prefect_server(Path(name, "prefect")) as api,
    ):
        say(f"seed {options.seed}")
        number = 0
        while (left := options.kills - chaos.kills.total()) > 0:
            life = lives[number % len(lives)]
            kills = -(-left // max(1, len(lives) - number))
            new_database(server.get_uri(), f"points_{number}")
            place = Place(server.get_uri(database=f"points_{number}"), Path(name, f"points_{number}"), api)
            with (
                memory_folder(Path(name, f"qdrant_{number}")) as kept,
                qdrant_server(kept, version=life.version) as qdrant,
            ):
                application = Application(qdrant.url, life, Path(name, f"files_{number}"))
                scene = Scene(place, application, qdrant)
                cycle(chaos, scene, steps(application, max(1, options.rows // 20)), kills, say, rows=options.rows)
            number += 1
        show(chaos, time.monotonic() - started)
    return 1 if chaos.different or chaos.wrong else 0


def show(chaos: Chaos, seconds: float) -> None:
    print("\nstage       kills")
    for stage in ORDER:
        print(f"{stage:<10} {chaos.kills[stage]:>6}")
    gaps = f", {chaos.gaps} of those while a name meant nothing" if chaos.gaps else ""
    print(f"{'all':<10} {chaos.kills.total():>6}, {chaos.inside} of them between Qdrant and the ledger{gaps}")
    print(f"\n{chaos.wrote.total()} writes by others ({', '.join(f'{k} {n}' for k, n in chaos.wrote.items())})")
    print(
        f"{chaos.asked.total()} searches ({', '.join(f'{k} {n}' for k, n in chaos.asked.items())}), {len(chaos.wrong)} wrong"
    )
    for line in chaos.wrong[:50]:
        print(f"WRONG      {line}")
    for line in chaos.different[:50]:
        print(f"DIFFERENT  {line}")
    print(f"{len(chaos.different)} differences in {chaos.compared} comparisons; {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
