"""Connections to PostgreSQL: how they are made, what they hand over, and what their errors mean."""

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg import errors
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo
from psycopg.types.string import BytesBinaryDumper

from tasks.base.errors import FatalError, TransientError, UsageError
from tasks.stores.postgres.pooler import is_transaction_pooler

Connection = psycopg.Connection[tuple[Any, ...]]


class _Raw(Dumper):
    """Bytes that are in wire format already."""

    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return cast(bytes, obj)


class _RawLoader(Loader):
    format = Format.BINARY

    def load(self, data: Any) -> bytes:
        return bytes(data)


class Packed(bytes):
    """A value in wire format, sent with an unknown type so that the cast in the SQL names it."""


class _PackedDumper(BytesBinaryDumper):
    oid = 0


psycopg.adapters.register_dumper(Packed, _PackedDumper)


SETTINGS = """
SET client_connection_check_interval = '2s'; -- a killed client's query ends soon after it
SET statement_timeout = 0;
SET datestyle = 'ISO, YMD';
SET intervalstyle = 'postgres';
SET extra_float_digits = 1;
SET bytea_output = 'hex'
"""
"""Of every session. The last four decide how keys read as text; vecferry.key_text has them too."""

_REACHED: set[str] = set()
"""What this process has connected to: it was there, so failing to reach it again may pass by itself."""


def connect(url: str, application: str = "vecferry") -> Connection:
    """An autocommit connection. Raises UsageError with the reason when the server cannot be used, and TransientError
    when it could be a moment ago."""
    try:
        connection = _open(url, application)
        if url not in _REACHED and is_transaction_pooler(connection, lambda: _open(url, application)):
            place = f"{connection.info.host}:{connection.info.port}"
            connection.close()
            raise UsageError(
                f"the database's URL points to a transaction pooler ({place}), where the locks and settings of a "
                "session do not last. Name the server itself, or the pooler's session mode; on Supabase that is "
                "the direct connection, or port 5432 of the pooler instead of 6543"
            )
        _REACHED.add(url)
        connection.execute(SETTINGS)
        adapt(connection)
    except psycopg.OperationalError as error:
        if url in _REACHED:
            raise TransientError(f"lost PostgreSQL: {_first_line(error)}; resume when it is back") from error
        raise UsageError(f"cannot connect to PostgreSQL: {_first_line(error)}; check the database's URL") from error
    except psycopg.ProgrammingError as error:
        raise UsageError(
            "the database's URL is not a PostgreSQL connection string such as postgresql://USER@HOST/NAME"
        ) from error
    return connection


def _open(url: str, application: str) -> Connection:
    # What is sent in binary is UTF-8, whatever the encoding of the database, and of a shell's PGCLIENTENCODING.
    return psycopg.connect(
        url, autocommit=True, application_name=application[:63], connect_timeout=10, client_encoding="UTF8"
    )


def adapt(connection: Connection) -> None:
    """Passes vectors, halfvecs and jsonb through as wire-format bytes, and finds pgvector in whichever schema it is. A
    no-op before the extension is there."""
    known = _types(connection)
    if "vector" not in {name for name, *_ in known} and (schema := pgvector_schema(connection)):
        connection.execute(
            "SELECT set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), %s::text), false)",
            (schema,),
        )
        known = _types(connection)
    for name, oid, array_oid in known:
        TypeInfo(name, oid, array_oid).register(connection)
        dumper = type(f"Raw_{name}", (_Raw,), {"oid": oid})
        connection.adapters.register_dumper(None, dumper)
        if name != "jsonb":
            connection.adapters.register_loader(oid, _RawLoader)


def pgvector_schema(connection: Connection) -> str | None:
    """The schema that pgvector lies in, quoted; None before it is installed. Supabase puts it into ``extensions``."""
    row = connection.execute(
        "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
        "WHERE e.extname = 'vector'"
    ).fetchone()
    return row[0] if row else None


def encoding(connection: Connection) -> str:
    """The encoding of the database, by PostgreSQL's name: UTF8, LATIN1, …"""
    return connection.info.parameter_status("server_encoding") or "UTF8"


def expressible(connection: Connection, message: str) -> str:
    """A message of ours or of a provider's in letters that the database has; a question mark stands for any other."""
    name = encoding(connection)
    if name == "UTF8":
        return message
    try:
        codec = codecs.lookup(re.sub("^WIN", "cp", name)).name
    except LookupError:
        codec = "ascii"
    return message.encode(codec, "replace").decode(codec)


def server_version(connection: Connection) -> dict[str, str]:
    """The versions of the server and of pgvector in this database."""
    row = connection.execute(
        "SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'vector')"
    ).fetchone()
    assert row
    return {"postgresql": row[0], **({"pgvector": row[1]} if row[1] else {})}


def _types(connection: Connection) -> list[tuple[Any, ...]]:
    # One question: TypeInfo.fetch takes three round trips a type, and a connection is made for every page compared.
    return connection.execute(
        "SELECT typname, oid, typarray FROM pg_type "
        "WHERE oid IN (to_regtype('vector'), to_regtype('halfvec'), to_regtype('jsonb'))"
    ).fetchall()


@contextmanager
def classified(doing: str) -> Iterator[None]:
    """Turns PostgreSQL's errors into the classes of contract 3."""
    try:
        yield
    except psycopg.Error as error:
        classed = classified_error(doing, error)
        if classed is error:
            raise
        raise classed from error


def classified_error(doing: str, error: Exception) -> Exception:
    """The error in its class of contract 3, where it is one of PostgreSQL's that has one; else the error itself."""
    if isinstance(error, errors.DiskFull | errors.OutOfMemory | errors.ConfigurationLimitExceeded):
        return FatalError(f"{doing}: {_first_line(error)}; free some, then run again")
    if isinstance(error, errors.InsufficientPrivilege):
        return FatalError(f"{doing}: {_first_line(error)}; grant it to this role, then run again")
    if isinstance(error, errors.UndefinedTable | errors.UndefinedColumn | errors.InvalidCatalogName):
        return FatalError(f"{doing}: {_first_line(error)}")
    if isinstance(error, psycopg.OperationalError | errors.SerializationFailure | errors.DeadlockDetected):
        return TransientError(f"{doing}: {_first_line(error)}")
    return error


@contextmanager
def refusable(doing: str) -> Iterator[None]:
    """As ``classified``; whatever else PostgreSQL refuses is fatal, in its own words: message, detail and hint."""
    try:
        with classified(doing):
            yield
    except psycopg.Error as error:
        hint = error.diag.message_hint
        if isinstance(error, errors.DependentObjectsStillExist):  # PostgreSQL would have them dropped
            hint = "have them do without it, then run this command again"
        words = [error.diag.message_primary or _first_line(error), error.diag.message_detail, hint]
        raise FatalError(f"{doing}: {'; '.join(' '.join(w.split()) for w in words if w)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
