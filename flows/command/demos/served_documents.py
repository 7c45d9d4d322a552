"""The tables of multi-model's demo, as an application has them: documents, which are modules of Python's standard library, their
chunks, and one column of vectors."""

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from flows.command.demos import docstrings
from flows.command.demos.application import literal
from flows.forms.models import OfTables
from sql import statement
from tasks.base.errors import UsageError
from tasks.embedders.registry import open_embedder
from tasks.runs import registry
from tasks.runs.database import database_url
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.connection import Connection, connect
from tasks.stores.postgres.model_tables import ModelTables, Roles

MODULES = (
    *(
        "argparse",
        "bisect",
        "calendar",
        "configparser",
        "contextlib",
        "copy",
        "csv",
        "difflib",
        "fileinput",
        "fnmatch",
        "getpass",
    ),
    *(
        "glob",
        "gzip",
        "heapq",
        "ipaddress",
        "mailbox",
        "queue",
        "random",
        "sched",
        "shelve",
        "shlex",
        "shutil",
        "statistics",
    ),
    *("subprocess", "tempfile", "textwrap", "threading", "timeit"),
)
CHUNKS, LONGEST = 4, 300
"""Docstrings of a module, and characters of one."""
SCHEMA = "vecferry_demo"
"""Where the tables lie in a database of the user's."""


def texts(module: str) -> list[str]:
    """The chunks of a module."""
    return docstrings.of_module(module, CHUNKS, LONGEST)


@dataclass(frozen=True)
class Ground:
    """Where the tables are."""

    database: str
    schema: str = "public"

    @property
    def given(self) -> dict[str, Any]:
        """Parameters that say so; none where a command finds them by itself."""
        if self.schema == "public":
            return {}
        return {"database": self.database, "roles": {"embeddings": f"{self.schema}.chunk_embeddings"}}

    @property
    def options(self) -> str:
        """The same as a person types them."""
        return f"{self.named} -p roles.embeddings={self.schema}.chunk_embeddings" if self.named else ""

    @property
    def named(self) -> str:
        """The database alone."""
        return "" if self.schema == "public" else f" -p database={self.database}"

    @property
    def roles(self) -> Roles:
        return OfTables(**self.given).roles.resolved()

    def connect(self) -> Connection:
        return connect(database_url(self.database), "demo")

    def tables(self, connection: Connection) -> ModelTables:
        """Once they serve several models."""
        return model_tables.find(connection, self.roles)


def there(connection: Connection, ground: Ground, models: dict[str, str]) -> bool:
    """Whether an earlier demo has left the tables. Raises UsageError where it was played in another directory, whose models went
    with it."""
    row = connection.execute("SELECT to_regclass(%s)", (f"{ground.schema}.chunk_embeddings",)).fetchone()
    if row == (None,):
        return False
    for tables in model_tables.standing(connection):
        others = [m.name for m in registry.listed(connection, tables) if m.name not in models.values()]
        if tables.schema == ground.schema and others:
            raise UsageError(
                f"the tables in {ground.schema} are of a demo in another directory, with the model {others[0]}: name that by --dir"
            )
    return True


def make(connection: Connection, ground: Ground, model: str) -> int:
    """Makes the tables with vectors of that model; returns the number of chunks."""
    chunks = {module: texts(module) for module in MODULES}
    vectors = iter(open_embedder(model).embed([text for of in chunks.values() for text in of]).whole)
    with connection.transaction():
        connection.execute(statement("demo_documents", schema=ground.schema))
        for module, contents in chunks.items():
            values = {"contents": contents, "vectors": [literal(next(vectors)) for _ in contents]}
            literals = {name: sql.Literal(value) for name, value in values.items()}
            connection.execute(statement("demo_document", schema=ground.schema, title=module, **literals))
    return sum(map(len, chunks.values()))


def has_document(connection: Connection, ground: Ground, title: str) -> bool:
    """Whether a document of that title is there."""
    query = sql.SQL("SELECT 1 FROM {} WHERE title = %s").format(sql.Identifier(ground.schema, "documents"))
    return connection.execute(query, (title,)).fetchone() is not None
