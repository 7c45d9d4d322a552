"""Kills vecferry with SIGKILL at random moments while others write to the table it migrates, and compares row by row.

``python -m tests.kill.chaos_live --kills 100`` runs it whole, ``--flow clip-to-megadescriptor`` over images, and ``--flow multi-model``
over documents that two models serve.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.helpers.live import Writers
from tests.helpers.readers import Readers
from tests.helpers.servers import prefect_server
from tests.kill.chaos import BACK, BUILD, ORDER, RUN, SWITCH, Place, Step, hit, new_database, postgres_server
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
class Chaos:
    """What was done and found."""

    random: random.Random
    spent: dict[str, dict[tuple[str, str], float]] = field(default_factory=lambda: defaultdict(dict))
    """Layout → (step, stage) → seconds that the undisturbed run spent there."""
    kills: Counter[str] = field(default_factory=Counter)
    inside: int = 0
    """Kills while a switch's transaction was open."""
    compared: int = 0
    wrote: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers to readers."""
    different: list[str] = field(default_factory=list)


def attempt(chaos: Chaos, place: Place, subject: Subject, layout: str, step: Step, stage: str | None = None) -> bool:
    """Starts the step's command and kills it once it has been in ``stage`` for a random while; None lets it finish. Whether
    it finished."""
    spent = chaos.spent[layout]
    with place.connection() as connection:
        since = connection.execute("SELECT clock_timestamp()").fetchone()
        assert since
        in_transaction = stage in ("cutover", "rollback") and chaos.random.random() < 0.6
        with _somebody(place, subject.search, in_transaction):
            process = place.start(*step.arguments, cold=False)
            measuring = stage is None and all(name != step.name for name, _ in spent)
            try:
                where = hit(
                    chaos.random,
                    spent,
                    connection,
                    step,
                    stage,
                    since[0],
                    process,
                    measuring=measuring,
                    in_transaction=in_transaction,
                    targets=1,
                )
            finally:
                process.kill()
                status = process.wait()
    if status == -9:
        chaos.kills[where] += 1
        chaos.inside += in_transaction
        return False
    if status == 2 and step.name == "rollback" and "is rolled_back" in place.log[-400:]:
        return True
    if status:
        raise AssertionError(f"{step.name} ended with {status}:\n{place.log[-3000:]}")
    return True


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
    chaos: Chaos,
    place: Place,
    subject: Subject,
    life: list[Step],
    layout: str,
    size: Size,
    say: Callable[[str], None],
) -> None:
    """One run through ``life``, people writing and searching all the while."""
    with place.connection() as connection:
        subject.make(connection, size.rows)
    planned = [(step.name, stage) for step in life for stage, count in step.kills for _ in range(count)]
    chosen = sorted(chaos.random.sample(range(len(planned)), min(size.kills, len(planned))))
    people = Writers(place.url, subject.write, subject.kinds, size.writers, size.pause)
    readers = Readers(place.url, subject.questions)
    with people.writing(), readers.reading():
        for step in life:
            for stage in [stage for name, stage in (planned[i] for i in chosen) if name == step.name]:
                if attempt(chaos, place, subject, layout, step, stage):
                    break
            else:
                attempt(chaos, place, subject, layout, step)
            if step.name != "rollback":
                with people.still(), place.connection() as connection:
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
    parser = argparse.ArgumentParser(description="Kill vecferry at random moments while others write to its table.")
    parser.add_argument("--flow", choices=[*SUBJECTS], default="text-384-to-1536")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--share", type=float, default=1.0, help="database_share; at full speed more happens at once")
    options = parser.parse_args()
    chaos, started = Chaos(random.Random(options.seed)), time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.0f} s  {line}", flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="vecferry-chaos-") as name,
        postgres_server(Path(name, "postgres")) as server,
        prefect_server(Path(name, "prefect")) as api,
    ):
        say(f"seed {options.seed}")
        number = 0
        while chaos.kills.total() < options.kills:
            place = _place(server, Path(name), number, api)
            wanted = 0 if number < 2 else options.kills - chaos.kills.total()
            subject = SUBJECTS[options.flow](Path(name, f"files_{number}"), number)
            layout = subject.layouts[number % 2]
            life = steps(subject, layout, max(1, options.rows // 20), options.share)
            cycle(chaos, place, subject, life, layout, Size(options.rows, wanted, options.writers), say)
            number += 1
        show(chaos, time.monotonic() - started)
    return 1 if chaos.different or chaos.wrong else 0


def _place(server: Any, folder: Path, number: int, api: str) -> Place:
    new_database(server.get_uri(), f"live_{number}")
    return Place(server.get_uri(database=f"live_{number}"), folder / f"live_{number}", api)


def show(chaos: Chaos, seconds: float) -> None:
    print("\nstage       kills")
    for stage in ORDER:
        print(f"{stage:<10} {chaos.kills[stage]:>6}")
    print(
        f"{'all':<10} {chaos.kills.total():>6}, {chaos.inside} of them inside the transaction of a switch or of its rehearsal"
    )
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
