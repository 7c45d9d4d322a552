"""What any plan wants of the PostgreSQL server. Writes nothing."""

import re
from collections.abc import Iterator

from tasks.runs import ledger
from tasks.stores.postgres import pgvector
from tasks.stores.postgres.connection import Connection, encoding
from tasks.stores.postgres.places import SCHEMA


def problems(connection: Connection) -> Iterator[str]:
    """What would stop any run."""
    row = connection.execute(
        # What could be installed is asked only where it is not: for that the server reads the files of all its extensions.
        "SELECT e.version, CASE WHEN e.version IS NULL THEN "
        "(SELECT default_version FROM pg_available_extensions WHERE name = 'vector') END, "
        "has_database_privilege(current_database(), 'CREATE'), quote_ident(current_database()), quote_ident(current_user), "
        "e.version IS NULL AND coalesce((SELECT trusted OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) "
        "          FROM pg_available_extension_versions WHERE name = 'vector' LIMIT 1), false) "
        "FROM (SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS version) AS e"
    ).fetchone()
    assert row
    installed, available, may_create, database, role, may_install = row
    if encoding(connection) == "SQL_ASCII":
        yield (
            f"the encoding of the database {database} is SQL_ASCII, in which nobody can say what the bytes of a text mean: "
            "dump it, and restore it into a database whose encoding is UTF8"
        )
    if not installed and not available:
        yield "pgvector is not on this server: install its package (postgresql-NN-pgvector), then run again"
    elif not installed and not (may_create and may_install):
        yield (
            "pgvector is not installed in this database and this role may not install it: "
            "have an administrator run CREATE EXTENSION vector"
        )
    version = installed or available
    if version and _version(version) < pgvector.OLDEST:
        yield f"pgvector {version} is too old: {'.'.join(map(str, pgvector.OLDEST))} or newer is needed"
    if not may_create and not ledger.exists(connection):
        yield f"this role may not create the schema {SCHEMA}: GRANT CREATE ON DATABASE {database} TO {role}"


def warnings(connection: Connection) -> Iterator[str]:
    """What a person should know of the server."""
    row = connection.execute(
        "SELECT coalesce((SELECT extversion FROM pg_extension WHERE extname = 'vector'), "
        "(SELECT default_version FROM pg_available_extensions WHERE name = 'vector'))"
    ).fetchone()
    version = row[0] if row else None
    if version and _version(version) < pgvector.ADVISED:
        yield (
            f"pgvector {version}: {'.'.join(map(str, pgvector.ADVISED))} or newer is advised (CVE-2026-3172 in parallel "
            f"index builds up to 0.8.1, vacuum corruption in 0.8.3): ALTER EXTENSION vector UPDATE"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text)[:3])
