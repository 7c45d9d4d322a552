"""What is done with a document by several models: its text is cut into chunks that each of them takes, their vectors are made
outside of any transaction and kept, and all of it is written in one."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
from psycopg import sql

from tasks.base.errors import TransientError, UsageError
from tasks.contents.chunks import chunks, halves
from tasks.embedders.interface import Embedded
from tasks.runs import registry
from tasks.runs.registry import RegisteredModel
from tasks.serving import documents
from tasks.serving.documents import Written
from tasks.serving.model_search import Key
from tasks.serving.opened_models import OpenedModels
from tasks.serving.text_vectors import Kept
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables

Vectors = Mapping[str, np.ndarray]
"""Of one model, float32[d] by text."""
TRIES = 5
"""Times that a document is tried that somebody else changes at the same time."""


@dataclass(frozen=True)
class Ingest:
    """Writes documents of one set of tables."""

    tables: ModelTables
    connect: Callable[[], AbstractContextManager[Connection]]
    models: OpenedModels
    kept: Kept

    def find(self, document: Written) -> Key | None:
        """The key of a document that has this title and this text; None where there is none, or the tables do not keep both."""
        of = self.tables.documents
        if not (of.title and of.text):
            return None
        query = sql.SQL(
            "SELECT {key} FROM {table} WHERE {title}::text = %s AND {text}::text = %s ORDER BY {key} LIMIT 1"
        ).format(
            key=sql.Identifier(of.key),
            table=of.identifier,
            title=sql.Identifier(of.title),
            text=sql.Identifier(of.text),
        )
        self._check(document)
        with self.connect() as connection:
            row = connection.execute(query, (document.title, document.content)).fetchone()
        return row[0] if row else None

    def insert(self, document: Written, model: RegisteredModel) -> Key:
        """Writes a document, its chunks and their vectors by that model; returns its key. Raises UsageError."""
        texts, vectors = self._cut(document, [model])
        with self.connect() as connection, connection.transaction():
            key = documents.insert(connection, self.tables, document, texts)
            written = self._write(connection, key, vectors, [model])
            assert written is not None
        return key

    def replace(self, document_id: Key, document: Written, default: RegisteredModel) -> int:
        """Puts another text in a document's place, with its chunks and their vectors by all models that have vectors of it now,
        or else by the ``default``; returns the number of chunks. Raises UsageError, and NotFound where there is no such document."""
        for _ in range(TRIES):
            with self.connect() as connection:
                models = self._having(connection, document_id) or [default]
            texts, vectors = self._cut(document, models)
            with self.connect() as connection, connection.transaction():
                documents.lock(connection, self.tables, document_id)
                if (self._having(connection, document_id) or [default]) != models:
                    continue
                key = documents.replace(connection, self.tables, document_id, document, texts)
                written = self._write(connection, key, vectors, models)
                assert written is not None
                return written
        raise self._changing(document_id)

    def embed_again(self, document_id: Key, model: RegisteredModel) -> int:
        """Writes the vectors of a document's chunks by that model; returns their number. Raises UsageError where one has none,
        and NotFound where there is no such document."""
        made: dict[str, np.ndarray] = {}
        for _ in range(TRIES):
            with self.connect() as connection:
                texts = [text for _, text in documents.chunks_of(connection, self.tables, document_id)]
            if missing := [text for text in dict.fromkeys(texts) if text not in made]:
                result = self._embedded(model, missing)
                for at, error in sorted(result.rejected.items()):
                    raise UsageError(f"model {model.name} has no vector of {_start(missing[at])}: {error.message}")
                made |= dict(zip(missing, result.vectors, strict=True))
            with self.connect() as connection, connection.transaction():
                written = self._write(connection, document_id, {model.number: made}, [model])
            if written is not None:
                return written
        raise self._changing(document_id)

    def _cut(self, document: Written, models: Sequence[RegisteredModel]) -> tuple[list[str], dict[int, Vectors]]:
        """The chunks of a document, cut so that every model takes them, and their vectors by number of the model."""
        self._check(document)
        whole = documents.is_its_own_chunk(self.tables)
        texts = [document.content] if whole and document.content.strip() else chunks(document.content)
        if not texts:
            raise UsageError("the document has no text to embed")
        vectors = dict[int, Vectors]()
        left = list(models)
        while left:
            model = left.pop(0)
            result = self._embedded(model, texts)
            if not result.rejected:
                vectors[model.number] = dict(zip(texts, result.vectors, strict=True))
                continue
            parted = list(texts)
            for at, error in sorted(result.rejected.items(), reverse=True):
                pieces = halves(texts[at]) if error.kind == "too_long" and not whole else []
                if len(pieces) < 2:
                    raise UsageError(f"model {model.name} has no vector of {_start(texts[at])}: {error.message}")
                parted[at : at + 1] = pieces
            texts, left = parted, list(models)  # what was made is kept, so that asking again costs nothing
        return texts, vectors

    def _check(self, document: Written) -> None:
        for what in (document.title or "", document.content):
            if "\0" in what or not _is_unicode(what):
                raise UsageError(
                    "the document holds characters that PostgreSQL cannot store: NUL, or half a surrogate pair"
                )

    def _embedded(self, model: RegisteredModel, texts: Sequence[str]) -> Embedded:
        return self.kept.embedded(self.models.embedder(model), texts, partial(self.models.embed, model.name))

    def _write(
        self, connection: Connection, key: Key, vectors: Mapping[int, Vectors], models: Sequence[RegisteredModel]
    ) -> int | None:
        """Writes the vectors of the chunks that are there, and returns their number; None where one says what was not embedded."""
        there = documents.chunks_of(connection, self.tables, key)
        for model in models:
            made = vectors[model.number]
            if any(text not in made for _, text in there):
                return None
            if there:
                matrix = np.stack([made[text] for _, text in there])
                documents.write_vectors(connection, self.tables, model, [chunk for chunk, _ in there], matrix)
        return len(there)

    def _having(self, connection: Connection, document_id: Key) -> list[RegisteredModel]:
        """The models that have vectors of the document."""
        have = {m.model for m in documents.embeddings_of(connection, self.tables, document_id).models if m.chunks}
        return [model for model in registry.listed(connection, self.tables) if model.name in have]

    def _changing(self, document_id: Key) -> TransientError:
        return TransientError(f"others went on changing document {document_id} while its vectors were made: try again")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _start(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
