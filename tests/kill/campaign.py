"""What all kill tests have: a command that is started and killed in a stage, the count of what came of it, and servers for it."""

import argparse
import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.servers import prefect_server
from tests.kill.moments import ORDER, Watched
from tests.kill.processes import Place, new_database, postgres_server

KILLED = -9
Say = Callable[[str], None]


@dataclass
class Chaos:
    """What was done and found."""

    random: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    """By stage."""
    inside: int = 0
    """Kills in the middle of a switch."""
    repeated: int = 0
    """Rollbacks that had been killed after their commit and said, when repeated, that there is nothing to take back (exit 2)."""
    compared: int = 0
    wrote: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers to readers."""
    different: list[str] = field(default_factory=list)

    def finished(self, place: Place, watched: Watched, stage: str) -> bool:
        """Whether the command has finished; where it was killed, it is counted in ``stage``. Raises AssertionError where it
        failed."""
        step, status = watched.step, watched.process.wait()
        if status == KILLED:
            self.kills[stage] += 1
            return False
        if status == 2 and step.verb == "rollback" and "is rolled_back" in place.log[-400:]:
            self.repeated += 1
        elif status:
            raise AssertionError(f"{step.name} ended with {status}:\n{place.log[-3000:]}")
        return True

    def cycles(self, kills: int) -> Iterator[tuple[int, int]]:
        """The number of each cycle and how many kills are left to it, until there were ``kills``."""
        for number in itertools.count():
            left = kills - self.kills.total()
            if left <= 0:
                return
            yield number, left

    def status(self, kills: int) -> int:
        """The exit status of a campaign that was to kill so often."""
        return 1 if self.different or self.wrong or self.kills.total() < kills else 0

    def show(self, switch: str) -> None:
        """Prints it. ``switch`` says where the kills inside of one were."""
        print("\nstage       kills")
        for stage in ORDER:
            print(f"{stage:<10} {self.kills[stage]:>6}")
        print(f"{'all':<10} {self.kills.total():>6}, {self.inside} of them {switch}\n")
        if self.wrote:
            print(f"{self.wrote.total()} writes by others ({_counts(self.wrote)})")
            print(f"{self.asked.total()} searches ({_counts(self.asked)}), {len(self.wrong)} wrong")
        if self.repeated:
            print(f"rollbacks that were killed after their commit and say so when repeated: {self.repeated}")
        for line in self.wrong[:50]:
            print(f"WRONG      {line}")
        for line in self.different[:50]:
            print(f"DIFFERENT  {line}")
        print(f"{len(self.different)} differences in {self.compared} comparisons")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.items())


@dataclass(frozen=True)
class Servers:
    """PostgreSQL and Prefect, in a folder, for the processes of one campaign."""

    folder: Path
    postgres: Any
    prefect: str
    say: Say
    """Prints a line with the seconds that have passed."""

    def place(self, name: str) -> Place:
        new_database(self.postgres.get_uri(), name)
        return Place(self.postgres.get_uri(database=name), self.folder / name, self.prefect)


@contextmanager
def servers(seed: int) -> Iterator[Servers]:
    """Those of a campaign, whose seed is said."""
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.0f} s  {line}", flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="vecferry-chaos-") as name,
        postgres_server(Path(name, "postgres")) as postgres,
        prefect_server(Path(name, "prefect")) as prefect,
    ):
        say(f"seed {seed}")
        try:
            yield Servers(Path(name), postgres, prefect, say)
            say("over")
        except KeyboardInterrupt:  # what was done by then is shown
            say("interrupted")


def options(description: str, rows: int) -> argparse.ArgumentParser:
    """Those that all have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--rows", type=int, default=rows)
    return parser
