"""Where a demo is played: a directory with a home and a PostgreSQL of its own, and the lines that say what comes."""

import os
import shutil
from pathlib import Path

from rich.text import Text

from flows.command import demos, ephemeral, interrupt
from flows.command.show.terminal import bold, out
from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.runs.database import database_url
from tasks.stores.postgres import embedded

RUN = "demo"
MARK = ".vecferry-demo"


def play(flow: str, directory: Path, database: str | None = None) -> None:
    """Plays the demo of a migration, in the database that ``database`` names or else in one of its own, and says how to look around
    in what it leaves.

    Raises UsageError where there is no such demo, where it cannot be played there, or where the directory holds anything but what an
    earlier demo left.
    """
    demo = demos.demo(flow)
    if database is not None:
        elsewhere = demos.anywhere(flow)
        database_url(database)
        home = _home(directory)
        with interrupt.playing(kept=True):
            elsewhere.play_in(home.parent, database)
        out.print(f"\nLook around: VECFERRY_HOME={home} vecferry status -p database={database}")
        return
    home = _home(directory)
    # Whatever names a database of the user's, a variable or a Secret block: the demo keeps out of it.
    names = (settings.DEFAULT_DATABASE, settings.OTHER_DATABASE, settings.LEDGER_DATABASE)
    hidden = "".join(f"{name}= " for name in names if name in os.environ)
    for name in (settings.DEFAULT_DATABASE, settings.LEDGER_DATABASE):
        os.environ[name] = embedded.url(settings.home())
    with interrupt.playing(kept=False):
        demo.play(home.parent)
    out.print(f"\nLook around: {hidden}VECFERRY_HOME={home} vecferry status {RUN}")


def _home(directory: Path) -> Path:
    """The home of the demo in its directory, which is empty."""
    home = emptied(directory.absolute()) / "home"
    os.environ["VECFERRY_HOME"] = str(home)
    return home


def head(name: str, rest: str) -> None:
    """The headline of a step."""
    out.print(Text.assemble(bold(name), rest))


def emptied(directory: Path) -> Path:
    """The directory, without what an earlier demo left. Raises UsageError when it holds anything else."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARK).exists():
            raise UsageError(f"{directory} is neither empty nor from an earlier demo: choose another --dir")
        # One that was killed leaves servers behind, which are known by files in here.
        ephemeral.end_orphan(str(directory / "home"))
        embedded.release(str(directory / "home"))
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).touch()
    return directory
