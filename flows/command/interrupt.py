"""Ctrl-C ends the command within seconds, whatever it is in the middle of, with one line that says how to go on.

The command's own thread is told by a KeyboardInterrupt and has a moment to put its things away. It may be unable to: it
waits for threads that cannot be interrupted (a call to a model, a wait before a retry), or for code that is not Python. So
a thread of its own brings the end about: it writes into the ledger, ends what would outlive the process, and exits. That
is as safe as ``kill -9``, which every run survives.
"""

import json
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import NoReturn, TypeVar
from uuid import UUID

import psycopg

from flows.command import early, ephemeral
from flows.command.show import terminal as shown
from tasks.base import settings
from tasks.runs import checkpoints, holding, ledger, status
from tasks.runs.commands import overview
from tasks.runs.database import database_url
from tasks.runs.outcome import Outcome
from tasks.stores.chroma import copy_folders
from tasks.stores.postgres import embedded
from tasks.stores.postgres.connection import Connection

T = TypeVar("T")

EXIT_STATUS = 1
"""Of a run that was interrupted: incomplete, and it can be resumed."""
GRACE = 0.8
"""Seconds that the command's own thread has to put its things away."""
STEP = 0.8
"""Seconds that each thing that is ended by force may take."""
LONGEST = 2.6
"""Seconds from Ctrl-C to the end at most."""
LEAST = 0.3
"""Seconds more, where those are over, for an embedded server to be told to stop: nothing else would."""
LONGEST_LINE = 1000  # of a command that is shown once more: nobody finds the beginning of one with hundreds of files
SHOW_CURSOR, WIPE_LINE = b"\x1b[?25h", b"\r\x1b[2K"


@dataclass
class _Command:
    """What this process is doing, as the thread that ends it needs to know."""

    options: Sequence[str] = ()
    run: tuple[str, str] | None = None
    """Its name, and the connection string of its ledger's database."""
    look: str = ""
    """The command that lists the runs of that ledger."""
    unfinished: str | None = None
    flow_runs: list[str] = field(default_factory=list)
    noted: threading.Event = field(default_factory=threading.Event)
    silenced: threading.Event = field(default_factory=threading.Event)
    unwound: threading.Event = field(default_factory=threading.Event)


_command = _Command()


@dataclass(frozen=True)
class Message:
    """The last words of the command."""

    line: str
    outcome: Outcome | None = None
    """What ``--json`` prints of the run, where there is one."""


@contextmanager
def listening() -> Iterator[None]:
    """While the body runs, Ctrl-C ends the process as described above. To be used on the main thread."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a background job of a script
        yield
        return
    ears, mouth = socket.socketpair()
    mouth.setblocking(False)
    # Python's handler runs on the main thread, once that is back in Python; this is written to at once.
    earlier = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGINT, _interrupt_main_thread)
    listener = threading.Thread(target=_listen, args=(ears,), name="interrupt", daemon=True)
    listener.start()
    try:
        yield
    finally:
        # A command that has come to its end is not interrupted while Python closes down.
        signal.signal(signal.SIGINT, signal.SIG_IGN if handler is early.leave else handler)
        signal.set_wakeup_fd(earlier)
        mouth.close()
        listener.join()


def concerning(run_id: str, database: str) -> None:
    """Says which run this process works on from now on, and the name of the database of its ledger."""
    _command.run, _command.look = (run_id, database_url(database)), overview(database)


@contextmanager
def making(place: str) -> Iterator[None]:
    """Says what the body fills, a directory or fsspec URL, which is of no use before it is whole."""
    new = "://" not in place and not (os.path.exists(place) and os.listdir(place))
    _command.unfinished = (
        f"{place} is incomplete. Remove it and start again"
        if new
        else f"what was written to {place} is incomplete. Start again in another place"
    )
    yield
    _command.unfinished = None


@contextmanager
def keeping() -> Iterator[None]:
    """Says that what the body has done is kept, and that the same command goes on with it."""
    _command.unfinished = "what is done is kept. Go on with"
    yield
    _command.unfinished = None


@contextmanager
def playing(kept: bool) -> Iterator[None]:
    """Says that the body is a demo, and whether the next one finds what this one has made."""
    _command.unfinished = "the demo goes on with what is there" if kept else "a demo always starts over"
    yield
    _command.unfinished = None


@contextmanager
def in_flow_run() -> Iterator[None]:
    """Notes the Prefect flow run that the body is, so that Prefect learns of an interruption."""
    from prefect.runtime import flow_run

    _command.flow_runs.append(str(flow_run.id))
    try:
        yield
    finally:
        if not noted():  # else it is still to be told
            _command.flow_runs.pop()


def flow_run_address() -> str | None:
    """Where Prefect's pages show the flow run that this process is in; None where there is none, or no pages."""
    from prefect.utilities.urls import url_for

    return url_for("flow-run", _command.flow_runs[-1]) if _command.flow_runs else None


def resume_with(options: Sequence[str]) -> None:
    """Options that the command to go on with needs: what was asked for and is not in the run's frozen plan."""
    _command.options = options


def noted() -> bool:
    """Whether Ctrl-C was pressed."""
    return _command.noted.is_set()


def end() -> NoReturn:
    """Waits for the end; to be called by the main thread when it has put its things away."""
    _command.unwound.set()
    while True:
        time.sleep(1)


def _interrupt_main_thread(signum: int, frame: FrameType | None) -> None:
    _command.silenced.wait(0.5)
    if not _command.unwound.is_set():
        raise KeyboardInterrupt


def _listen(ears: socket.socket) -> None:
    with ears:
        while read := ears.recv(64):
            if signal.SIGINT not in read:
                continue
            if noted():
                _command.unwound.set()  # the second time: nothing is waited for
            else:
                _command.noted.set()
                threading.Thread(target=_end_process, name="end", daemon=True).start()


def _end_process() -> None:
    out, terminal = _silence()
    until, run, typed = time.monotonic() + LONGEST, _command.run, shlex.join(["vecferry", *sys.argv[1:]])
    message = Message(f"interrupted; nothing was changed. Start again with{_ending(typed)}")
    if _command.unfinished:
        message = Message(f"interrupted; {_command.unfinished}{_ending(typed)}")
    connection = noted = None
    try:
        if run:
            message = Message(f"interrupted; what is done is kept, and `{_command.look}` says how to go on")
            connection = _within(until, lambda: _connect(run[1]))
        if run and connection:
            noted = _within(until, lambda: _note(connection, run[0], typed))
        telling = threading.Thread(target=_tell_prefect, daemon=True)
        telling.start()
        _command.unwound.wait(min(GRACE, _left(until)))
        telling.join(min(GRACE, _left(until)))
        _within(until, lambda: ephemeral.end_own(settings.home()))
        if run and connection and holding.holds(run[0]) and noted is None:
            # A transaction of ours is in the way, a switch: it is taken back.
            _within(until, lambda: holding.end_connections(connection, run[0]))
            noted = _within(until, lambda: _note(connection, run[0], typed))
        _within(max(until, time.monotonic() + LEAST), embedded.close)
        _within(until, copy_folders.remove_own)
        if run and connection and holding.holds(run[0]):
            # The last thing that happens: who loses a connection must not have the time to blame a batch for it.
            _within(until, lambda: holding.end_connections(connection, run[0]))
    finally:
        message = noted or message
        if message.outcome is not None and "--json" in sys.argv:
            os.write(out, f"{json.dumps(message.outcome.as_json(), default=str)}\n".encode())
        before = (WIPE_LINE if shown.passing else b"\n") + SHOW_CURSOR if os.isatty(terminal) else b""
        os.write(terminal, before + f"vecferry: {message.line}\n".encode())
        os._exit(EXIT_STATUS)


def _ending(typed: str) -> str:
    return f": {typed}" if len(typed) <= LONGEST_LINE else " the same command"


def _silence() -> tuple[int, int]:
    """From here on only the last words are written: what Prefect and the progress bars have to say concerns nobody.
    Returns where to write them: standard output and standard error."""
    out, terminal, nowhere = os.dup(1), os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    logging.disable()
    _command.silenced.set()
    return out, terminal


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _within(until: float, step: Callable[[], T]) -> T | None:
    """What ``step`` returns, or None when it fails or takes longer than STEP, or than ``until`` (of the monotonic clock)."""
    results: list[T] = []

    def run() -> None:
        with suppress(Exception):  # the process ends in any case, and the next start mends what was not done here
            results.append(step())

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    worker.join(min(STEP, _left(until)))
    return results[0] if results else None


def _connect(url: str) -> Connection:
    connection = psycopg.connect(url, autocommit=True, application_name="vecferry interrupt", connect_timeout=2)
    connection.execute("SET lock_timeout = '300ms'")
    return connection


def _note(connection: Connection, run_id: str, typed: str) -> Message:
    """Has the ledger know of the interruption, and returns what is kept and how to go on."""
    if holding.holds(run_id):
        holding.interrupt(connection, run_id)
    if sys.argv[1] == "demo":
        return Message(f"interrupted; {_command.unfinished}{_ending(typed)}")
    if ledger.find(connection, run_id) is None:
        return Message(f"interrupted; nothing was changed. Start again with{_ending(typed)}")
    record = replace(ledger.get(connection, run_id), at_work=False)  # it is we who hold it, and not for long
    step = status.next_step(record, checkpoints.batches(connection, run_id))
    command = typed if sys.argv[1] not in ("run", "snapshot", "rerun") else step.now
    if command and command.startswith(("vecferry run ", "vecferry snapshot ", "vecferry rerun ")):
        command = shlex.join([*shlex.split(command), *_command.options])
    outcome = replace(status.outcome(connection, run_id), now=None, exit=EXIT_STATUS, next=command, later=None)
    if command is None:
        return Message(f"interrupted; run {run_id} is {record.state.replace('_', ' ')}", outcome)
    return Message(f"interrupted; what is done of run {run_id} is kept. Go on with: {command}", outcome)


def _tell_prefect() -> None:
    if not _command.flow_runs:
        return
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    # Where Prefect cannot be told, the ledger says it all the same.
    with suppress(Exception), get_client(sync_client=True) as client:
        client.set_flow_run_state(
            UUID(_command.flow_runs[-1]),
            Crashed(message="interrupted at the terminal; what is done is kept"),
            force=True,
        )
