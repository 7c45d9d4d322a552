"""Tables that serve several models, with documents of known words."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import psycopg
import pytest

from flows.client import Client
from tasks.embedders import registry as providers
from tasks.embedders.registry import open_embedder
from tasks.runs import registry
from tasks.runs.registry import RegisteredModel
from tasks.serving import documents
from tasks.shadows.postgres.models import functions, init, setup
from tasks.shadows.postgres.models.init import Asked
from tasks.shadows.postgres.models.setup import Wanted
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.connection import Connection, connect
from tasks.stores.postgres.model_tables import ModelTables

WORDS = (
    *("ship", "river", "mountain", "bread", "copper", "violin", "garden", "winter"),
    *("letter", "engine", "planet", "market", "forest", "mirror", "candle", "bridge"),
)


@dataclass
class Several:
    """Documents of two chunks each, with vectors of every model."""

    connection: Connection
    tables: ModelTables

    def model(self, name: str) -> RegisteredModel:
        return registry.named(self.connection, self.tables, name)

    def register(self, *names: str) -> None:
        """Models that are searched from then on."""
        wanted = [Wanted(name, open_embedder(name).space) for name in names]
        setup.set_up(self.connection, self.tables, wanted)

    def remake(self) -> None:
        with self.connection.transaction():
            functions.remake(self.connection, self.tables)

    def fill(self, rows: int) -> None:
        """So many documents, written by the application itself."""
        rng = np.random.default_rng(5)
        words = [list(rng.choice(WORDS, 6)) for _ in range(rows)]
        self.connection.execute(
            "INSERT INTO documents (id, title, content, metadata) SELECT n, 'document ' || n - 1, content, "
            "jsonb_build_object('part', (n - 1) %% 10) FROM unnest(%s::text[]) WITH ORDINALITY AS t (content, n)",
            ([" ".join(of) for of in words],),
        )
        pieces = [f"{' '.join(of[at : at + 3])} of document {n}" for n, of in enumerate(words) for at in (0, 3)]
        self.connection.execute(
            "INSERT INTO document_chunks (document_id, chunk_index, content) SELECT (n + 1) / 2, (n + 1) %% 2, content "
            "FROM unnest(%s::text[]) WITH ORDINALITY AS t (content, n) ORDER BY n",
            (pieces,),
        )
        self.connection.execute("SELECT setval(pg_get_serial_sequence('documents', 'id'), %s)", (max(1, rows),))

    def embed(self, *names: str) -> None:
        """Vectors of all chunks by these models."""
        rows = self.connection.execute("SELECT id::text, content FROM document_chunks ORDER BY id").fetchall()
        for name in names:
            vectors = open_embedder(name).embed([text for _, text in rows]).whole
            documents.write_vectors(self.connection, self.tables, self.model(name), [key for key, _ in rows], vectors)

    def client(self) -> Client:
        return Client(connections=4)


def several(connection: Connection, models: Sequence[str] = (), rows: int = 0) -> Several:
    """The guide's tables, these models registered, the first of them active, and documents with their vectors."""
    tables, _ = init.initialise(connection, Asked())
    made = Several(connection, tables)
    made.fill(rows)
    made.register(*models)
    made.embed(*models)
    connection.execute("ANALYZE documents, document_chunks, chunk_embeddings")
    return made


@contextmanager
def template(postgres: Callable[[str], str], models: Sequence[str], rows: int) -> Iterator[str]:
    """The name of a database with such tables, to be copied for each test of a module."""
    name = f"several_{uuid4().hex[:12]}"
    with psycopg.connect(postgres("postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE with_vector STRATEGY file_copy")
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(providers.PROVIDERS, "flipped", "tests.helpers.flipped:open_flipped")
            with connect(postgres(name), "vecferry test") as connection:
                several(connection, models, rows)
        yield name
        server.execute(f"DROP DATABASE {name}")


def served_by(connection: Connection) -> Several:
    """What a copy holds."""
    return Several(connection, model_tables.find(connection))
