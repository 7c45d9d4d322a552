"""Kills vecferry with SIGKILL at random moments while others write to the table it migrates, and compares row by row.

``python -m tests.chaos_live --kills 100`` runs it whole.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos import Place, Step, new_database, postgres_server, stage_of
from tests.live import Writers, faults, make_table
from tests.servers import prefect_server

RUN = "live"
LAYOUTS = ("column", "side_table")


def steps(layout: str, batch_rows: int, share: float) -> list[Step]:
    """The life of a run that takes ``share`` of the database's time beside the writers; how often each step is killed is its
    share of the kills of a cycle."""
    target = '[{"table": "docs", "text": "content"}]'
    migrate = ("run", "text-384-to-1536", "-p", f"targets={target}", "-p", "embedder=hashing/1536")
    options = ("-p", "old_embedder=hashing/384", "-p", f"layout={layout}", "-p", f"batch_rows={batch_rows}")
    # Half of a small table is replaced while it is verified, and an index full of dead rows finds less.
    lenient = ("-p", "gates.min_recall=0.3")
    pace = ("-p", f"database_share={share}")
    return [
        Step("run", (*migrate, *options, *lenient, *pace, "--run-id", RUN), (("any", 14),)),
        Step("cutover", ("cutover", RUN, *lenient, *pace), (("any", 5),)),
        Step("catch-up", ("catch-up", RUN, *pace), (("any", 2),)),
        Step("rollback", ("rollback", RUN), (("any", 2),)),
        Step("cutover again", ("cutover", RUN, *lenient, *pace), (("any", 3),)),
    ]


@dataclass
class Chaos:
    """What was done and found."""

    random: random.Random
    seconds: dict[str, float] = field(default_factory=dict)
    """Step → how long it takes when nothing happens to it."""
    kills: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    wrote: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)


def attempt(chaos: Chaos, place: Place, step: Step, kill: bool) -> bool:
    """Starts the step's command and kills it at a random moment of it, or lets it finish. Whether it finished."""
    started, stage = time.monotonic(), "begin"
    with place.connection() as connection:
        since = connection.execute("SELECT clock_timestamp()").fetchone()
        assert since
        process = place.start(*step.arguments, cold=False)
        end = started + chaos.random.uniform(0, 1.0) * chaos.seconds.get(step.name, 3.0) if kill else float("inf")
        while (ended := process.poll()) is None and time.monotonic() < end:
            if kill:
                try:
                    stage = stage_of(connection, RUN, step.name.split()[0], since[0], targets=1)
                except psycopg.errors.UndefinedTable:
                    stage = "begin"
            time.sleep(0.01)
        process.kill()
        status = process.wait()
    if ended is None:
        chaos.kills[stage] += 1
        return False
    if not kill:
        chaos.seconds.setdefault(step.name, time.monotonic() - started)
    if status == 2 and step.name == "rollback" and "is rolled_back" in place.log[-400:]:
        return True
    if status:
        raise AssertionError(f"{step.name} ended with {status}:\n{place.log[-3000:]}")
    return True


def cycle(
    chaos: Chaos,
    place: Place,
    layout: str,
    kills: int,
    rows: int,
    writers: int,
    say: Callable[[str], None],
    share: float = 1.0,
) -> None:
    """One run through its whole life with at most ``kills`` kills, and people writing all the while."""
    with place.connection() as connection:
        make_table(connection, rows)
    life = steps(layout, max(1, rows // 20), share)
    planned = [step.name for step in life for _, count in step.kills for _ in range(count)]
    chosen = Counter(chaos.random.sample(planned, min(kills, len(planned))))
    people = Writers(place.url, writers)
    with people.writing():
        for step in life:
            for _ in range(chosen[step.name]):
                if attempt(chaos, place, step, kill=True):
                    break
            else:
                attempt(chaos, place, step, kill=False)
            if step.name != "rollback":
                with people.still(), place.connection() as connection:
                    attempt(chaos, place, Step("catch-up", ("catch-up", RUN), ()), kill=False)
                    found = faults(connection)
                    chaos.different += [f"{layout}, after {step.name}: {line}" for line in found]
                    chaos.compared += 1
            say(f"{layout:<11} {step.name:<14} {chaos.kills.total()} kills so far, {len(chaos.different)} differences")
    chaos.wrote += people.wrote


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill vecferry at random moments while others write to its table.")
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
            cycle(chaos, place, LAYOUTS[number % 2], wanted, options.rows, options.writers, say, options.share)
            number += 1
        show(chaos, time.monotonic() - started)
    return 1 if chaos.different else 0


def _place(server: Any, folder: Path, number: int, api: str) -> Place:
    new_database(server.get_uri(), f"live_{number}")
    return Place(server.get_uri(database=f"live_{number}"), folder / f"live_{number}", api)


def show(chaos: Chaos, seconds: float) -> None:
    print("\nstage       kills")
    for stage, count in chaos.kills.items():
        print(f"{stage:<10} {count:>6}")
    print(f"{'all':<10} {chaos.kills.total():>6}")
    print(f"\n{chaos.wrote.total()} writes by others ({', '.join(f'{k} {n}' for k, n in chaos.wrote.items())})")
    for line in chaos.different[:50]:
        print(f"DIFFERENT  {line}")
    print(f"{len(chaos.different)} differences in {chaos.compared} comparisons; {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
