"""Search and ingestion by the models of a database's tables, for applications: importable without Prefect.

    from flows.client import search, search_multi_model, ingest_document, update_document_embeddings, migrate_to_new_model

Functions are plain, not coroutines, and threads may call them at once: what they wait for is a database and a model. An
asynchronous program writes ``await asyncio.to_thread(search, "What is RAG?")``.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from tasks.base import settings
from tasks.base.errors import UsageError
from tasks.embedders.registry import open_embedder
from tasks.runs import model_figures, registry
from tasks.runs.database import Connection, database_url
from tasks.runs.model_figures import ModelStatus, Storage
from tasks.runs.registry import RegisteredModel
from tasks.serving import documents, model_search
from tasks.serving.documents import Covered, DocumentEmbeddings, Written
from tasks.serving.ingest import Ingest
from tasks.serving.model_search import Aggregation, Answer, Hit, Key, Ranked, Searched, Wanted
from tasks.serving.opened_models import Embed, OpenedModels, Vector
from tasks.serving.purchasing import Allowance, Purchasing
from tasks.serving.text_vectors import Kept
from tasks.stores.postgres import model_tables
from tasks.stores.postgres.model_tables import ModelTables, Roles
from tasks.stores.postgres.pool import Pool

__all__ = [
    "Aggregation",
    "Allowance",
    "Answer",
    "Client",
    "Covered",
    "DocumentEmbeddings",
    "Embed",
    "Hit",
    "Key",
    "ModelStatus",
    "Ranked",
    "Roles",
    "Searched",
    "Storage",
    "as_json",
    "client",
    "ingest_document",
    "migrate_to_new_model",
    "search",
    "search_multi_model",
    "update_document",
    "update_document_embeddings",
]

TURN = 600.0
"""Seconds that a document which is to be embedded waits for others that are."""


class Client:
    """The tables of one database, through a pool of connections. Threads share it."""

    def __init__(
        self,
        database: str = settings.DEFAULT_DATABASE,
        embed: Embed | None = None,
        roles: Roles | None = None,
        connections: int = 10,
        timeout: float = 30.0,
        allowance: Allowance | None = None,
    ) -> None:
        """``database`` names the environment variable or Secret block with the URL; ``embed`` stands in for the models' own
        ``embed``, and pays for itself; ``roles`` says which tables are meant where there are several sets; ``timeout`` is what a
        statement may take, in seconds; ``allowance`` is what may be spent on vectors. Raises UsageError where the database cannot be
        reached."""
        self._url, self._roles = database_url(database), roles
        self._pool = Pool(self._url, connections, timeout)
        # Of its own for what waits for a model with a connection in hand: searches would have none meanwhile.
        self._embedding = Pool(self._url, connections, timeout, TURN)
        self._kept = Kept(settings.home(), self._embedding.connection)
        purchasing = Purchasing(self._pool.connection, allowance or Allowance())
        self._models = OpenedModels(open_embedder if embed else purchasing.open, embed)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._pool.close()
        self._embedding.close()

    def search(
        self,
        query: str | None = None,
        model_name: str | None = None,
        top_k: int = 5,
        filter: Mapping[str, Any] | None = None,
        vector: Vector | None = None,
        min_similarity: float | None = None,
    ) -> Answer:
        """The chunks nearest to a text, or to a ``vector`` of the model's, by the model of that name or else the active one.

        ``filter`` is what the metadata of a chunk, or of its document, must contain; ``min_similarity`` stands in for the model's
        own threshold, and minus infinity has none. Raises UsageError, NotFound where no model has that name, and TransientError.
        """
        wanted = Wanted(top_k, filter, min_similarity)
        while True:
            tables, model = self._model(model_name)
            registry.may_be_searched(model)
            [probe] = self._models.probes([model], query, None if vector is None else {model.name: vector})
            try:
                return self._nearest(tables, model, probe, wanted)
            except UsageError:
                if model_name is not None or not self._switched(model):  # while the query was embedded
                    raise

    def search_multi_model(
        self,
        query: str | None = None,
        model_names: Sequence[str] = (),
        aggregation: Aggregation = "union",
        top_k: int = 5,
        filter: Mapping[str, Any] | None = None,
        vectors: Mapping[str, Vector] | None = None,
        min_similarity: float | None = None,
    ) -> Answer:
        """The same by several models, fused by reciprocal rank: chunks that any of them has, or with ``intersection`` those that
        all have among their nearest. ``vectors`` are by name of the model. Raises as ``search`` does."""
        wanted = Wanted(top_k, filter, min_similarity)
        tables, known = self._pool.reading(self._known)
        asked = [registry.among(known, name) for name in model_names or vectors or ()]
        for model in asked:
            registry.may_be_searched(model)
        given = None if vectors is None else {registry.among(known, name).name: v for name, v in vectors.items()}
        pairs = list(zip(asked, self._models.probes(asked, query, given), strict=True))
        return self._pool.reading(lambda c: model_search.by_models(c, tables, pairs, aggregation, wanted))

    def ingest_document(
        self,
        title: str | None,
        content: str,
        embedding_model: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Key:
        """Writes a document, its chunks, and their vectors by the model of that name or else the active one, in one transaction;
        returns its key. Vectors by other models come with catch-up. Raises as ``search`` does."""
        ingest, model = self._ingest(embedding_model)
        return ingest.insert(Written(title, content, metadata), model)

    def find_document(self, title: str | None, content: str) -> Key | None:
        """The key of a document that has this title and this text already; None where there is none."""
        return self._ingest(None)[0].find(Written(title, content))

    def update_document(self, document_id: Key, content: str, title: str | None = None) -> int:
        """Puts another text in a document's place: its chunks are replaced, with their vectors by every model that had vectors of
        it, in one transaction; returns the number of chunks. Raises as ``search`` does."""
        ingest, model = self._ingest(None)
        return ingest.replace(document_id, Written(title, content), model)

    def update_document_embeddings(self, document_id: Key, model_name: str | None = None) -> int:
        """Gives a document's chunks vectors by the model of that name, or else the active one; returns the number of chunks. Raises
        as ``search`` does."""
        ingest, model = self._ingest(model_name)
        return ingest.embed_again(document_id, model)

    def document_embeddings(self, document_id: Key) -> DocumentEmbeddings:
        """How many of a document's chunks each model has vectors of. Raises NotFound where there is no such document."""
        return self._pool.reading(lambda c: documents.embeddings_of(c, model_tables.find(c, self._roles), document_id))

    def models(self) -> list[ModelStatus]:
        """The models that there are, and what each covers."""
        return self._pool.reading(lambda c: model_figures.statuses(c, model_tables.find(c, self._roles)))

    def model_named(self, name: str | None = None) -> str:
        """The whole name of the model that is called so, or of the active one. Raises UsageError, and NotFound."""
        return self._model(name)[1].name

    def probe(self, query: str, model_name: str | None = None) -> np.ndarray:
        """The vector by which a text is searched for, float32[d]. Raises UsageError, NotFound and TransientError."""
        return self._models.probes([self._model(model_name)[1]], query, None)[0]

    def storage(self, model_name: str) -> Storage:
        """Bytes of a model's vectors. Raises NotFound."""
        tables, model = self._model(model_name)
        return self._pool.reading(lambda c: model_figures.storage(c, tables, model))

    def _ingest(self, model_name: str | None) -> tuple[Ingest, RegisteredModel]:
        tables, model = self._model(model_name)
        return Ingest(tables, self._pool.connection, self._models, self._kept), model

    def _nearest(self, tables: ModelTables, model: RegisteredModel, probe: np.ndarray, wanted: Wanted) -> Answer:
        return self._pool.reading(lambda c: model_search.by_model(c, tables, model, probe, wanted))

    def _known(self, connection: Connection) -> tuple[ModelTables, list[RegisteredModel]]:
        tables = model_tables.find(connection, self._roles)
        return tables, registry.listed(connection, tables)

    def _model(self, name: str | None) -> tuple[ModelTables, RegisteredModel]:
        def asked(connection: Connection) -> tuple[ModelTables, RegisteredModel]:
            tables = model_tables.find(connection, self._roles)
            if name is None:
                return tables, registry.default(connection, tables)
            return tables, registry.named(connection, tables, name)

        return self._pool.reading(asked)

    def _switched(self, model: RegisteredModel) -> bool:
        """Whether another model is active by now."""
        return self._model(None)[1].number != model.number


_clients: dict[str, Client] = {}
"""Of the functions below, by name of the database. Process-wide, since whoever calls a function keeps nothing between two calls."""
_making = threading.Lock()


def client(database: str = settings.DEFAULT_DATABASE) -> Client:
    """The one that the functions of this module share."""
    with _making:
        if database not in _clients:
            _clients[database] = Client(database)
        return _clients[database]


def search(
    query: str, model_name: str | None = None, *, database: str = settings.DEFAULT_DATABASE, **wanted: Any
) -> Answer:
    """As ``Client.search``."""
    return client(database).search(query, model_name, **wanted)


def search_multi_model(
    query: str,
    model_names: Sequence[str],
    aggregation: Aggregation = "union",
    *,
    database: str = settings.DEFAULT_DATABASE,
    **wanted: Any,
) -> Answer:
    """As ``Client.search_multi_model``."""
    return client(database).search_multi_model(query, model_names, aggregation, **wanted)


def ingest_document(
    title: str | None,
    content: str,
    embedding_model: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    database: str = settings.DEFAULT_DATABASE,
) -> Key:
    """As ``Client.ingest_document``."""
    return client(database).ingest_document(title, content, embedding_model, metadata)


def update_document(
    document_id: Key, content: str, title: str | None = None, *, database: str = settings.DEFAULT_DATABASE
) -> int:
    """As ``Client.update_document``."""
    return client(database).update_document(document_id, content, title)


def update_document_embeddings(
    document_id: Key, model_name: str | None = None, *, database: str = settings.DEFAULT_DATABASE
) -> int:
    """As ``Client.update_document_embeddings``."""
    return client(database).update_document_embeddings(document_id, model_name)


def migrate_to_new_model(
    source_model: str, target_model: str, *, progress: bool = True, **parameters: Any
) -> dict[str, Any]:
    """Runs the flow multi-model, with whatever else of its parameters is given, such as ``run_id``, ``cutover="auto"`` or
    ``documents={"first": 100}``; called again with the same ``run_id`` it goes on where it stopped. ``progress`` shows the stages on
    standard error.

    Returns what `vecferry run --json` prints: ``run_id``, ``state`` (``verified``, or ``cut_over``), ``targets`` with their rows,
    ``report``, ``next`` and so on, and ``done``, lines that say what was done. Raises UsageError where the run cannot begin,
    VerificationRefused where what it made does not pass, and TransientError or FatalError where it stopped: the same call goes on.
    """
    from flows.command.in_process import run  # only this needs Prefect

    return run("multi-model", {"source_model": source_model, "target_model": target_model, **parameters}, progress)


def as_json(value: Any) -> Any:
    """Any of the results as JSON has it: keys that are UUIDs as text."""
    return orjson.loads(orjson.dumps(value))
