"""Kills vecferry with SIGKILL at random moments while others write to the table it migrates, and compares row by row.

``python -m tests.kill.chaos_live --kills 100`` runs it whole, ``--flow clip-to-megadescriptor`` over images, and ``--flow multi-model``
over documents that two models serve.
"""

import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from tests.helpers.live import Writers
from tests.helpers.readers import Readers
from tests.kill.campaign import Chaos, Say, options, servers
from tests.kill.moments import BACK, BUILD, RUN, SWITCH, Spent, Step, drawn, hit, started
from tests.kill.processes import Place
from tests.kill.subjects import SUBJECTS, Subject


def steps(subject: Subject, layout: str, batch_rows: int, share: float) -> list[Step]:
    """The life of a run that takes ``share`` of the database's time beside the writers, and the kills of a cycle."""
    options = ("-p", f"batch_rows={batch_rows}")
    # Half of a small table is replaced while it is verified, and an index full of dead rows finds less.
    lenient = ("-p", "gates.min_recall=0.3")
    pace = ("-p", f"database_share={share}")
    contract = Step("contract", ("contract", RUN, "-p", "rollback_days=0"), (("begin", 1), ("contract", 2)))
    return [
        Step("run", ("run", *subject.run(layout), *options, *lenient, *pace, "--run-id", RUN), BUILD),
        Step("cutover", ("cutover", RUN, *lenient, *pace), SWITCH),
        Step("catch-up", ("catch-up", RUN, *subject.catch_up, *pace), (("begin", 1), ("catch up", 2))),
        Step("rollback", ("rollback", RUN), BACK),
        Step("cutover again", ("cutover", RUN, *lenient, *pace), SWITCH),
        *([contract] if subject.lives_on else []),
    ]


@dataclass(frozen=True)
class Size:
    """Of a cycle."""

    rows: int
    kills: int
    """At the most."""
    writers: int = 4
    pause: float = 0.04
    """Seconds that each rests after a write."""


@dataclass
class Disturbed(Chaos):
    """Runs of one flow over a table that others write to."""

    spent: dict[str, Spent] = field(default_factory=lambda: defaultdict(dict))
    """By the undisturbed run of each layout."""


def attempt(
    chaos: Disturbed, place: Place, subject: Subject, layout: str, step: Step, stage: str | None = None
) -> bool:
    """Starts the step's command and kills it once it has been in ``stage`` for a random while; None lets it finish. Whether
    it finished."""
    spent = chaos.spent[layout]
    in_transaction = stage in ("cutover", "rollback") and chaos.random.random() < 0.6
    measuring = stage is None and all(name != step.name for name, _ in spent)
    with _somebody(place, subject.search, in_transaction), started(place, step) as watched:
        where = hit(watched, stage, chaos.random, spent, measuring=measuring, in_transaction=in_transaction)
    finished = chaos.finished(place, watched, where)
    chaos.inside += in_transaction and not finished
    return finished


@contextmanager
def _somebody(place: Place, function: str, wanted: bool) -> Iterator[None]:
    """Somebody who changes the search function and does not commit: a switch, which replaces it last, waits for them with
    all the rest done."""
    if not wanted:
        yield
        return
    with psycopg.connect(place.url, application_name="chaos reader") as connection:
        connection.execute(f"ALTER FUNCTION {function} COST 101")  # type: ignore[call-overload]
        yield


def cycle(
    chaos: Disturbed,
    place: Place,
    subject: Subject,
    life: list[Step],
    layout: str,
    size: Size,
    say: Say,
) -> None:
    """One run through ``life``, people writing and searching all the while."""
    with place.connection() as connection:
        subject.make(connection, size.rows)
    stages = drawn(chaos.random, life, size.kills)
    people = Writers(place.url, subject.write, subject.kinds, size.writers, size.pause)
    readers = Readers(place.url, subject.questions)
    with people.writing(), readers.reading():
        for step in life:
            if not any(attempt(chaos, place, subject, layout, step, stage) for stage in stages[step.name]):
                attempt(chaos, place, subject, layout, step)
            if step.name != "rollback":
                with people.crowd.still(), place.connection() as connection:
                    catch_up = ("catch-up", RUN, *subject.catch_up)
                    attempt(chaos, place, subject, layout, Step("catch-up", catch_up, ()))
                    result = subject.faults(connection, place.home)
                    chaos.different += [f"{layout}, after {step.name}: {line}" for line in result]
                    chaos.compared += 1
            done = f"{chaos.kills.total()} kills so far, {len(chaos.different)} differences, {len(readers.wrong)} wrong answers"
            say(f"{layout:<13} {step.name:<14} {done}")
    chaos.wrote += people.wrote
    chaos.asked += readers.asked
    chaos.wrong += [f"{layout}, {line}" for line in readers.wrong]


def main() -> int:
    parser = options("Kill vecferry at random moments while others write to its table.", rows=2_000)
    parser.add_argument("--flow", choices=[*SUBJECTS], default="text-384-to-1536")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--share", type=float, default=1.0, help="database_share; at full speed more happens at once")
    asked = parser.parse_args()
    chaos = Disturbed(random.Random(asked.seed))
    with servers(asked.seed) as own:
        for number, left in chaos.cycles(asked.kills):
            subject = SUBJECTS[asked.flow](own.folder / f"files_{number}", number)
            layout = subject.layouts[number % 2]
            life = steps(subject, layout, max(1, asked.rows // 20), asked.share)
            size = Size(asked.rows, 0 if number < 2 else left, asked.writers)
            cycle(chaos, own.place(f"live_{number}"), subject, life, layout, size, own.say)
    chaos.show("inside the transaction of a switch or of its rehearsal")
    return chaos.status(asked.kills)


if __name__ == "__main__":
    sys.exit(main())
