"""Kills vecferry with SIGKILL at random moments while others write to the Qdrant collection it migrates and search it, and compares
point by point with what they have written.

``python -m tests.kill.chaos_qdrant --kills 100`` runs it whole, in all three places in turn, over texts and images.
"""

import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from qdrant_client import models

from tests.helpers.captioned import NAME
from tests.helpers.counting import counted
from tests.helpers.memory import memory_folder
from tests.helpers.qdrant_application import LIVES, Application
from tests.helpers.qdrant_readers import Readers
from tests.helpers.qdrant_server import QdrantServer, qdrant_server
from tests.helpers.qdrant_writers import Writers
from tests.kill.campaign import Chaos, Say, options, servers
from tests.kill.moments import BACK, BUILD, RUN, SWITCH, Spent, Step, drawn, hit, started
from tests.kill.processes import Place

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
class Disturbed(Chaos):
    """Runs over a collection that others write to; ``inside`` is between Qdrant and the ledger."""

    spent: Spent = field(default_factory=dict)
    """The most that a start which nobody killed spent there."""
    gaps: int = 0
    """Kills while a name meant nothing."""


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


def attempt(chaos: Disturbed, scene: Scene, step: Step, stage: str | None = None) -> bool:
    """Starts the step's command and kills it once it has been in ``stage`` for a random while, or once Qdrant is changed; None lets it
    finish. Whether it finished."""
    spent: Spent = chaos.spent if stage else {}
    inside = stage in REACHED and chaos.random.random() < INSIDE and not scene.done(step.verb)
    with _gap(chaos, scene, inside and step.verb == "cutover"):
        with started(scene.place, step) as watched:
            if inside:
                where = str(stage)
                while watched.process.poll() is None and not scene.done(step.verb):
                    time.sleep(0.001)
                time.sleep(chaos.random.uniform(0, 0.1))
            else:
                where = hit(watched, stage, chaos.random, spent, measuring=stage is None)
        finished = chaos.finished(scene.place, watched, where)
        if not finished:
            chaos.inside += step.verb in REACHED and scene.done(step.verb) and scene.state() != REACHED[step.verb]
            chaos.gaps += scene.application.in_gap()
    if finished and not stage:
        chaos.spent |= {which: max(seconds, chaos.spent.get(which, 0)) for which, seconds in spent.items()}
    return finished


@contextmanager
def _gap(chaos: Disturbed, scene: Scene, wanted: bool) -> Iterator[None]:
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


def elsewhere(chaos: Disturbed, scene: Scene, step: Step) -> None:
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


def cycle(chaos: Disturbed, scene: Scene, life: list[Step], kills: int, say: Say, *, rows: int = 300) -> None:
    """One run through ``life``, people writing all the while, save where a name changes hands, and searching."""
    application = scene.application
    application.make(rows)
    stages = drawn(chaos.random, life, kills)
    people, readers = Writers(application), Readers(application)
    catch_up = Step("catch-up", ("catch-up", RUN, *DATABASE), ())

    def through(step: Step) -> None:
        if not any(attempt(chaos, scene, step, stage) for stage in stages[step.name]):
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
                with people.crowd.still(application.pauses and step.verb in REACHED):
                    if application.life.strategy == "alias" and step.name in ("cutover", "rollback"):
                        with people.crowd.still():
                            elsewhere(chaos, scene, step)
                    through(step)
                people.some()
                with people.crowd.still():
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
    parser = options("Kill vecferry at random moments while others write to its collection.", rows=300)
    parser.add_argument("--lives", default="", help="those whose name has this in it")
    asked = parser.parse_args()
    lives = [life for life in LIVES if asked.lives in str(life)]
    chaos = Disturbed(random.Random(asked.seed))
    with servers(asked.seed) as own:
        for number, left in chaos.cycles(asked.kills):
            life, name = lives[number % len(lives)], f"points_{number}"
            kills = -(-left // max(1, len(lives) - number))
            with (
                memory_folder(own.folder / f"qdrant_{number}") as kept,
                qdrant_server(kept, version=life.version) as server,
            ):
                application = Application(server.url, life, own.folder / f"files_{number}")
                scene = Scene(own.place(name), application, server)
                cycle(chaos, scene, steps(application, max(1, asked.rows // 20)), kills, own.say, rows=asked.rows)
    gaps = f", {chaos.gaps} of those while a name meant nothing" if chaos.gaps else ""
    chaos.show(f"between Qdrant and the ledger{gaps}")
    return chaos.status(asked.kills)


if __name__ == "__main__":
    sys.exit(main())
