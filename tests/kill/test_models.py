"""Commands about models that are ended after each of their statements: tables go on being written and searched, and the same command
goes on to what an undisturbed one leaves."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tasks.embedders.hashing import HashingEmbedder
from tasks.runs import coverage, registry
from tasks.shadows.postgres.models import init, rename, retire, rollback, setup, switch
from tasks.shadows.postgres.models.init import Asked, Source
from tasks.shadows.postgres.models.setup import Wanted
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.connection import Connection, connect
from tests.shadows.test_model_tables import FIXED

pytestmark = [pytest.mark.timeout(900), pytest.mark.whole]
ASKED = Asked(source=Source("hashing/8", HashingEmbedder(8).space), replace_unique=True)
DIMENSIONS = {"4": 4, "other": 4, "6": 6, "six": 6}
KILLS = 60
"""At most, of each command."""


class Killed(BaseException):
    """Nothing is sent after it."""


def begun(connection: Connection) -> None:
    pass


def prepared(connection: Connection) -> None:
    """Three models, two of which share a column, with a vector of each chunk."""
    init.initialise(connection, ASKED)
    set_up(connection, "4", "other")
    connection.execute(
        "INSERT INTO chunk_embeddings (chunk_id, model_id, embedding_4) SELECT c.id, m, '[1,2,3,4]' FROM document_chunks c, "
        "generate_series(2, 3) m"
    )


def set_up(connection: Connection, *names: str) -> None:
    wanted = [Wanted(f"hashing/{name}", HashingEmbedder(DIMENSIONS[name]).space) for name in names]
    setup.set_up(connection, model_tables.find(connection), wanted)


def retired(connection: Connection, *names: str) -> None:
    tables = model_tables.find(connection)
    for name in names:
        for model in registry.listed(connection, tables):
            if model.name == f"hashing/{name}":
                if not model.ended:
                    retire.retire(connection, tables, model.name)
                retire.retire(connection, tables, model.name, 0)


def renamed(connection: Connection, by_dimensions: bool) -> None:
    rename.rename(connection, model_tables.find(connection), by_dimensions)


def put_back(connection: Connection) -> None:
    for tables in model_tables.every(connection):
        rollback.roll_back(connection, tables)


def ready_to_go_back(connection: Connection) -> None:
    prepared(connection)
    retired(connection, "4", "other")
    renamed(connection, True)


def renamed_before(connection: Connection) -> None:
    prepared(connection)
    renamed(connection, True)


Verb = Callable[[Connection], object]
VERBS: dict[str, tuple[Verb, Verb]] = {
    "init": (begun, lambda c: init.initialise(c, ASKED)),
    "setup": (prepared, lambda c: set_up(c, "6", "six")),
    "activate": (prepared, lambda c: switch.activate(c, model_tables.find(c), "hashing/4")),
    "retire one of a column": (prepared, lambda c: retired(c, "4")),
    "retire both": (prepared, lambda c: retired(c, "4", "other")),
    "rename": (prepared, lambda c: renamed(c, True)),
    "rename back": (renamed_before, lambda c: renamed(c, False)),
    "rollback": (ready_to_go_back, put_back),
}


def left(connection: Connection) -> dict[str, list[str]]:
    """What there is, without the numbers of sets and models, which a transaction that came to nothing has taken too."""
    queries = {
        "indexes": "SELECT indexname, indexdef, indisvalid FROM pg_indexes JOIN pg_index ON indexrelid = indexname::regclass "
        "WHERE schemaname = 'public'",
        "columns": "SELECT table_name, column_name, is_nullable FROM information_schema.columns WHERE table_schema = 'public'",
        "functions": "SELECT proname, prosqlbody IS NULL, obj_description(oid, 'pg_proc') FROM pg_proc WHERE proname ~ '^search_'",
        "triggers": "SELECT tgname, tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal",
        "rows": "SELECT to_jsonb(e) - 'model_id' FROM chunk_embeddings e",
    }
    told = {name: [str(row) for row in connection.execute(query)] for name, query in queries.items()}
    for tables in model_tables.every(connection):
        covered = coverage.covered(connection, tables)
        told["models"] = [
            f"{m.name} {m.column} {m.active} {m.ended} {covered[m.number]}" for m in registry.listed(connection, tables)
        ]
    numbers = r"(?<=search_chunks_)\d+|(?<=vecferry_)\d+|(?<=hnsw_\d_)\d+|(?<=model_id = ')\d+"
    return {name: sorted(re.sub(numbers, "N", line) for line in lines) for name, lines in told.items()}


def goes_on(connection: Connection) -> None:
    """The application writes as it did before, and searches by whichever models there are."""
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'chunk_embeddings'::regclass AND attname IN ('embedding', 'embedding_8')"
    ((column,),) = connection.execute(columns).fetchall()
    with connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO document_chunks VALUES (99, 1, 'more')")
        connection.execute(f"INSERT INTO chunk_embeddings (chunk_id, {column}) VALUES (99, '[1,2,3,4,5,6,7,8]')")
    for tables in model_tables.every(connection):
        registry.default(connection, tables)
        for model in registry.listed(connection, tables):
            if model.searched:
                vector = str([1.0] * model.dimensions)
                connection.execute("SELECT * FROM search_chunks(%s, model_name => %s)", (vector, model.name))


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_ended_goes_on(
    postgres: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """After any of its statements."""
    prepare, do = VERBS[verb]
    send, sent, most = psycopg.Connection.execute, [0], [0]

    def execute(self: Any, *args: Any, **more: Any) -> Any:
        sent[0] += 1
        if most[0] and sent[0] > most[0]:
            raise Killed
        return send(self, *args, **more)

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    with psycopg.connect(postgres("postgres"), autocommit=True) as server:

        def copied(template: str) -> str:
            name = f"killed_{uuid4().hex[:12]}"
            send(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
            return name

        origin = copied("with_vector")
        with connect(postgres(origin)) as connection:
            connection.execute(FIXED)
            prepare(connection)
        with connect(postgres(copied(origin))) as connection:
            sent[0] = 0
            do(connection)
            total, expected = sent[0], left(connection)
        for at in range(1, total, max(1, total // KILLS)):
            name = copied(origin)
            with connect(postgres(name)) as connection:
                sent[0], most[0] = 0, at
                with pytest.raises(Killed):
                    do(connection)
                most[0] = 0
            with connect(postgres(name)) as connection:
                goes_on(connection)
                do(connection)
                goes_on(connection)
                assert left(connection) == expected, f"ended after statement {at} of {total}"
            send(server, f"DROP DATABASE {name} WITH (FORCE)".encode())
