"""Nothing is bought twice, although whoever bought it was ended after its vectors were kept and before they were indexed."""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import TransientError
from tasks.begin import begin
from tasks.embedders.openai.server import PROBES
from tasks.embedders.registry import open_embedder
from tasks.runs.run import open_run
from tasks.runs.vectors import keep, keys_of
from tasks.stores.postgres.connection import Connection
from tests.helpers.buyer import buy, text_of
from tests.helpers.live_table import Table
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.several_models import Several
from tests.helpers.terminal import COMMAND

MODELS, ROWS = ("hashing/64",), 0
End = Callable[..., None]
NEW, OLD = "openai/text-embedding-3-small", "openai/text-embedding-3-large?dimensions=384"
INGESTED = "openai/text-embedding-3-small?dimensions=64"


@pytest.fixture
def run_id(connection: Connection, provider: OpenAIServer) -> str:
    """Of a run whose models both cost money."""
    provider.max_inputs = 500
    Table(connection, rows=1)
    targets = [{"table": "docs", "text": "content"}]
    form = parse(Text384To1536, {"targets": targets, "embedder": NEW, "old_embedder": OLD})
    begin(form.request(), "killed", form.given())
    return "killed"


@pytest.fixture
def paid(served: Several, provider: OpenAIServer) -> Several:
    served.register(INGESTED)
    return served


@contextmanager
def index_that_waits(database: str, position: int = 0) -> Iterator[End]:
    """Who indexes a vector at that place of its segment waits while the body runs. Yields what waits for one who does, kills that
    process where it is given, and takes its session away, as a server does of a client that is gone."""
    with psycopg.connect(database, autocommit=True, application_name="vecferry test") as connection:
        connection.execute(
            "CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END'"
        )
        connection.execute(
            f"CREATE TRIGGER waits BEFORE INSERT ON vecferry.vector FOR EACH ROW WHEN (NEW.position = {position}) "
            "EXECUTE FUNCTION waits()"
        )
        connection.execute("SELECT pg_advisory_lock(4711)")

        def end(process: "subprocess.Popen[bytes] | None" = None) -> None:
            waiting = "FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
            for _ in range(2000):
                if connection.execute(f"SELECT 1 {waiting}").fetchone():
                    break
                time.sleep(0.01)
            if process:
                process.kill()
                process.wait()
            row = connection.execute(f"SELECT count(pg_terminate_backend(pid, 5000)) {waiting}").fetchone()
            assert row == (1,), "nobody came to index anything"

        yield end
        connection.execute("DROP TRIGGER waits ON vecferry.vector; DROP FUNCTION waits")


def bought(provider: OpenAIServer) -> Counter[int]:
    """Texts, by how often they were bought."""
    texts = Counter(text for call in provider.answered() for text in call.inputs if text not in PROBES)
    return Counter(texts.values())


@pytest.mark.parametrize("model", [OLD, pytest.param(NEW, marks=pytest.mark.whole)])
def test_a_kill_between_a_segment_and_its_index(run_id: str, provider: OpenAIServer, database: str, model: str) -> None:
    """Of whichever of the run's models, and whichever verb comes next."""
    with index_that_waits(database) as end:
        process = subprocess.Popen([sys.executable, "-m", "tests.helpers.buyer", run_id, "0", "30", model])
        end(process)
    buy(run_id, 0, 40, model)
    assert bought(provider) == {1: 40}


def test_a_buyer_that_is_ended_while_others_work(run_id: str, provider: OpenAIServer, database: str) -> None:
    """They look at what it left when they buy what it had claimed."""
    run = open_run(run_id, "DATABASE_URL")
    with run.kept_open():
        buy(run_id, 100, 110, OLD)
        with index_that_waits(database) as end:
            process = subprocess.Popen([sys.executable, "-m", "tests.helpers.buyer", run_id, "0", "30", OLD])
            end(process)
        buy(run_id, 0, 40, OLD)
    assert bought(provider) == {1: 50}


def test_a_session_that_is_taken_away(run_id: str, provider: OpenAIServer, database: str) -> None:
    """The same process tries again."""
    run = open_run(run_id, "DATABASE_URL")
    with run.kept_open(), ThreadPoolExecutor(1) as threads:
        with index_that_waits(database) as end:
            buying = threads.submit(buy, run_id, 0, 30, OLD)
            end()
            with pytest.raises((TransientError, psycopg.OperationalError)):
                buying.result()
        buy(run_id, 0, 40, OLD)
    assert bought(provider) == {1: 40}


def test_a_segment_of_which_a_part_is_indexed(run_id: str, provider: OpenAIServer, database: str) -> None:
    """Where way is given to others, that takes a while."""
    run, model, texts = open_run(run_id, "DATABASE_URL"), open_embedder(NEW), [text_of(at) for at in range(150)]
    with psycopg.connect(database, autocommit=True) as other, run.kept_open(), run.giving_way(0.5):
        other.execute("SELECT 1")
        with index_that_waits(database, position=120) as end, ThreadPoolExecutor(1) as threads, run.connection() as own:
            keeping = threads.submit(keep, run, own, model.space, keys_of(model, texts), provider.vectors(texts))
            end()
            with pytest.raises(psycopg.OperationalError):
                keeping.result()
        buy(run_id, 0, 150, NEW)
    assert not bought(provider)


def test_a_folder_that_was_cleared(run_id: str, provider: OpenAIServer, tmp_path: Path) -> None:
    """What another model has made of the same texts is still known."""
    with open_run(run_id, "DATABASE_URL").kept_open():
        for model in (NEW, OLD):
            buy(run_id, 0, 1, model)
        shutil.rmtree(tmp_path / "home" / "vectors" / open_embedder(OLD).space.fingerprint)
        for model in (OLD, NEW):
            buy(run_id, 0, 1, model)
    assert bought(provider) == {3: 1}, "by one model twice"


@pytest.mark.whole
def test_an_ingest_that_is_killed(paid: Several, provider: OpenAIServer, database: str, tmp_path: Path) -> None:
    """The same command goes on."""
    (tmp_path / "notes.txt").write_text("Words that cost money.")
    command = [COMMAND, "ingest", str(tmp_path / "notes.txt"), "--model", INGESTED]
    with index_that_waits(database) as end:
        process = subprocess.Popen(command)
        end(process)
    assert subprocess.run(command, check=False).returncode == 0
    assert bought(provider) == {1: 1}


def test_a_document_that_another_was_writing(paid: Several, provider: OpenAIServer, database: str) -> None:
    """A service goes on, whatever becomes of the others."""
    with paid.client() as client, paid.client() as other, ThreadPoolExecutor(1) as threads:
        client.ingest_document("One", "the first", INGESTED)
        with index_that_waits(database) as end:
            writing = threads.submit(other.ingest_document, "Two", "the second", INGESTED)
            end()
            with pytest.raises((TransientError, psycopg.OperationalError)):
                writing.result()
        client.ingest_document("Two", "the second", INGESTED)
    assert bought(provider) == {1: 2}
