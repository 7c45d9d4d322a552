"""A user's mistake is one clear line that names the thing and the next step, exit 2, and nothing is written."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import chromadb
import psycopg
import pytest

from tasks.stores.postgres.connection import Connection
from tests.helpers.servers import free_port

Vecferry = Callable[..., tuple[int, str, str]]


def one_line(ended: tuple[int, str, str], *words: str, status: int = 2) -> None:
    code, _, err = ended
    assert code == status, err
    assert err.startswith("vecferry: "), err
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, f"{word!r} is not in: {err}"


RUN = ("run", "chroma-to-pgvector")


def test_no_such_path(vecferry: Vecferry, tmp_path: Path) -> None:
    """A missing directory is named and not created."""
    one_line(vecferry(*RUN, "-p", f"chroma.path={tmp_path}/nowhere"), "nowhere", "does not exist")
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_that_holds_no_chroma(vecferry: Vecferry, tmp_path: Path) -> None:
    """A directory without a Chroma database stays as it is."""
    one_line(vecferry(*RUN, "-p", f"chroma.path={tmp_path}"), "holds no Chroma database")
    assert not (tmp_path / "chroma.sqlite3").exists()


def test_no_such_collection(vecferry: Vecferry, chroma_dir: Callable[..., str]) -> None:
    """A typo names the collections there are and creates none."""
    path = chroma_dir()
    one_line(vecferry(*RUN, "-p", f"chroma.path={path}", "-p", "collections=[dcos]"), "dcos", "available: docs")
    assert [c.name for c in chromadb.PersistentClient(path).list_collections()] == ["docs"]


def test_a_closed_port(vecferry: Vecferry) -> None:
    """A server that is not there."""
    one_line(
        vecferry(*RUN, "-p", "chroma.host=127.0.0.1", "-p", f"chroma.port={free_port()}"),
        "cannot reach Chroma",
        "chroma run",
    )


def test_no_source_at_all(vecferry: Vecferry) -> None:
    """Neither path nor host."""
    one_line(vecferry(*RUN), "chroma.path")


def test_both_sources(vecferry: Vecferry, chroma_dir: Callable[..., str]) -> None:
    """Path and host at once."""
    one_line(vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}", "-p", "chroma.host=x"), "not both")


def test_an_unknown_parameter(vecferry: Vecferry, chroma_dir: Callable[..., str]) -> None:
    """A misspelt name lists the ones there are."""
    one_line(
        vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}", "-p", "colections=[docs]"), "colections", "collections"
    )


def test_a_value_of_the_wrong_kind(vecferry: Vecferry, chroma_dir: Callable[..., str]) -> None:
    """A bad value names its parameter."""
    one_line(vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}", "-p", "batch_rows=many"), "batch_rows", "many")


def test_an_unknown_flow(vecferry: Vecferry) -> None:
    """Another flow's name lists the ones there are."""
    one_line(vecferry("run", "chroma-to-qdrant"), "chroma-to-qdrant", "chroma-to-pgvector")


def test_empty_batch_ids(vecferry: Vecferry, chroma_dir: Callable[..., str]) -> None:
    """[] never means all."""
    one_line(vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}", "-p", "batch_ids=[]"), "batch_ids is empty")


def test_a_password_in_a_parameter(vecferry: Vecferry, chroma_dir: Callable[..., str]) -> None:
    """It is refused, and not repeated."""
    ended = vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}", "-p", "database=postgresql://me:secret@host/db")
    one_line(ended, "database", "password", "environment variable")
    assert "secret" not in ended[2]


def test_a_database_name_that_stands_for_nothing(vecferry: Vecferry, chroma_dir: Callable[..., str]) -> None:
    """The name of an unset variable is named."""
    one_line(vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}", "-p", "database=NOT_SET"), "NOT_SET")


def test_postgres_that_is_not_there(
    vecferry: Vecferry, chroma_dir: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed port of PostgreSQL."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://postgres@127.0.0.1:{free_port()}/postgres")
    one_line(vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}"), "cannot connect to PostgreSQL", "refused")


def test_a_wrong_password(
    vecferry: Vecferry, chroma_dir: Callable[..., str], connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL's refusal is passed on, the password is not."""
    row = connection.execute("SHOW hba_file").fetchone()
    assert row
    rules = Path(row[0])
    before = rules.read_text()
    connection.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    try:
        rules.write_text("local all locked scram-sha-256\n" + before)
        connection.execute("SELECT pg_reload_conf()")
        host = connection.info.host
        url = f"postgresql://locked:wrong@/{connection.info.dbname}?host={host}"
        _wait_until_refused(url)
        monkeypatch.setenv("DATABASE_URL", url)
        ended = vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}")
        one_line(ended, "password authentication failed", "locked")
        assert "wrong" not in ended[2]
    finally:
        rules.write_text(before)
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("DROP ROLE locked")


def _wait_until_refused(url: str) -> None:
    """The server reads its rules again some time after it was asked to."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                return
        time.sleep(0.05)
    raise AssertionError("the server does not read its rules again")


def test_pgvector_that_may_not_be_installed(
    vecferry: Vecferry,
    chroma_dir: Callable[..., str],
    postgres: Callable[[str], str],
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A role that may not create the extension is told who can."""
    connection.execute("DROP EXTENSION vector")
    role = f"plain_{connection.info.dbname}"
    connection.execute(f"CREATE ROLE {role} LOGIN")
    monkeypatch.setenv("DATABASE_URL", postgres(connection.info.dbname).replace("//postgres:", f"//{role}:"))
    one_line(vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}"), "CREATE EXTENSION vector", "administrator")


def test_no_permission_in_the_schema(
    vecferry: Vecferry,
    chroma_dir: Callable[..., str],
    postgres: Callable[[str], str],
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A role that may not create tables is told the grant it needs."""
    role = f"poor_{connection.info.dbname}"
    connection.execute(f"CREATE ROLE {role} LOGIN")
    monkeypatch.setenv("DATABASE_URL", postgres(connection.info.dbname).replace("//postgres:", f"//{role}:"))
    one_line(vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}"), "GRANT CREATE")


def test_a_table_that_is_not_ours(vecferry: Vecferry, chroma_dir: Callable[..., str], connection: Connection) -> None:
    """Somebody else's table of that name is left alone, and another name is proposed."""
    connection.execute("CREATE TABLE docs (precious text)")
    one_line(
        vecferry(*RUN, "-p", f"chroma.path={chroma_dir()}"), "public.docs exists and is not vecferry's", "tables.docs="
    )


def test_two_collections_for_one_table(vecferry: Vecferry, chroma_dir: Callable[..., str]) -> None:
    """A collision of names is a problem of the plan."""
    chroma_dir(name="my-docs")
    path = chroma_dir(name="my.docs")
    one_line(vecferry(*RUN, "-p", f"chroma.path={path}"), "my-docs, my.docs would share the table my_docs")


def test_an_unknown_run(vecferry: Vecferry) -> None:
    """Every command that takes a run says which there are."""
    for command in ("status", "rerun", "cutover", "rollback", "contract", "verify"):
        one_line(vecferry(command, "nobody"), "nobody")


def test_a_missing_argument(vecferry: Vecferry) -> None:
    """The argument parser's complaints look the same."""
    one_line(vecferry("run"), "FLOW")
    one_line(vecferry("status", "--bad"), "--bad")


def test_plan_writes_nothing_and_reports_problems_with_exit_2(
    vecferry: Vecferry, chroma_dir: Callable[..., str], connection: Connection, database: str
) -> None:
    """The plan of an unusable request is still shown whole, as JSON too."""
    connection.execute("CREATE TABLE docs (precious text)")
    with psycopg.connect(database) as other:
        before = other.execute("SELECT count(*) FROM pg_class").fetchone()
    code, out, err = vecferry("plan", "chroma-to-pgvector", "-p", f"chroma.path={chroma_dir(count=30)}", "--json")
    assert code == 2, err
    planned = json.loads(out)
    assert planned["rows"] == 30
    assert "not vecferry's" in planned["problems"][0]
    with psycopg.connect(database) as other:
        assert other.execute("SELECT count(*) FROM pg_class").fetchone() == before
