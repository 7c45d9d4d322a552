"""Asks the search functions of a set of tables; made by tasks/shadows/postgres/models/functions.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, overload
from uuid import UUID

import numpy as np
import orjson
from psycopg import errors, sql

from tasks.base.errors import FatalError, UsageError
from tasks.base.words import listed
from tasks.embedders.naming import shown
from tasks.runs.registry import RegisteredModel, check_dimensions
from tasks.stores.postgres import wire
from tasks.stores.postgres.connection import Connection, Packed
from tasks.stores.postgres.model_tables import ModelTables

Key = int | str | UUID
"""Of a document or a chunk, as its table has it."""
Aggregation = Literal["union", "intersection"]
NO_THRESHOLD = float("-inf")
MOST = 1_000
"""Chunks that one search gives."""
SUMMED = (1e-15, 1e15)
"""Lengths of vectors whose squares a float32 holds the sum of."""


@dataclass(frozen=True)
class Ranked:
    """What one model says of a chunk."""

    model: str
    rank: int
    """1 for the nearest."""
    similarity: float
    """Of cosine 1 − distance, of l2 1 / (1 + distance), of ip the inner product."""


@dataclass(frozen=True)
class Hit:
    """One chunk."""

    rank: int
    chunk_id: Key
    document_id: Key
    title: str | None
    content: str
    score: float
    """Its similarity; of several models the sum of 1 / (60 + rank) over those that have it."""
    models: tuple[Ranked, ...]
    """The models that have it, in the order in which they were asked."""

    @property
    def model(self) -> str:
        return self.models[0].model

    @property
    def similarity(self) -> float:
        return self.models[0].similarity


@dataclass(frozen=True)
class Searched:
    """A model that was asked."""

    model: str
    threshold: float | None
    """The similarity that a hit needs; None where any will do."""
    hits: int
    nearest: float | None = None
    """The highest similarity that any chunk has, where there are no hits; None where no chunk is to be had."""

    @property
    def note(self) -> str | None:
        """Why it has given nothing, where that is not for the sake of other models' hits."""
        if self.hits:
            return None
        if self.nearest is None:
            return f"{shown(self.model)} finds nothing: it has a vector of no chunk that may be given"
        if self.threshold is None or self.nearest >= self.threshold:
            return None
        return (
            f"{shown(self.model)} finds nothing because of its threshold: the nearest chunk has a similarity of "
            f"{self.nearest:.3f}, and the least is {self.threshold:.3f}"
        )


@dataclass(frozen=True)
class Answer(Sequence[Hit]):
    """The hits, best first: a sequence of them."""

    hits: tuple[Hit, ...]
    searched: tuple[Searched, ...]
    aggregation: Aggregation | None = None
    """None where one model was asked."""

    @property
    def notes(self) -> list[str]:
        """Which models have given nothing, and why."""
        notes = [searched.note for searched in self.searched if searched.note]
        if not self.hits and not notes and self.aggregation == "intersection":
            return ["no chunk is among the nearest of every model; aggregation union gives those of any"]
        return notes

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, at: int) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Hit]: ...
    def __getitem__(self, at: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[at]


@dataclass(frozen=True)
class Wanted:
    """What of the chunks is asked for."""

    top_k: int = 5
    filter: Mapping[str, Any] | None = None
    """What the metadata of a chunk, or of its document, must contain."""
    min_similarity: float | None = None
    """None: each model's own threshold."""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= MOST:
            raise UsageError(f"top_k must be a whole number from 1 to {MOST:,}, got {self.top_k}")


def by_model(
    connection: Connection, tables: ModelTables, model: RegisteredModel, vector: np.ndarray, wanted: Wanted
) -> Answer:
    """The chunks nearest to a vector, float32[d], of that model. Raises UsageError where it has other dimensions, or the model
    is no longer searched."""
    hits = _by_model(connection, tables, model, vector, wanted)
    return Answer(tuple(hits), (_searched(connection, tables, model, vector, wanted, len(hits)),))


def by_models(
    connection: Connection,
    tables: ModelTables,
    queries: Sequence[tuple[RegisteredModel, np.ndarray]],
    aggregation: Aggregation,
    wanted: Wanted,
) -> Answer:
    """The chunks nearest by several models, each asked with a vector of its own, fused by reciprocal rank. Raises UsageError."""
    if aggregation not in get_args(Aggregation):
        raise UsageError(f"aggregation must be {' or '.join(get_args(Aggregation))}, got {aggregation!r}")
    if not queries:
        raise UsageError("name the models to search by")
    names = [model.name for model, _ in queries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"name each model once; named twice: {listed(twice)}")
    packed = [_packed(model, vector) for model, vector in queries]
    vectors = sql.SQL(", ").join(sql.SQL("%b::vector") * len(packed))
    query = sql.SQL("SELECT * FROM {}(ARRAY[{}], %s::text[], %s, %s, %s::jsonb, %s)").format(
        sql.Identifier(tables.schema, "search_chunks_multi"), vectors
    )
    rows = _rows(
        connection, query, [*packed, names, aggregation, wanted.top_k, _json(wanted.filter), wanted.min_similarity]
    )
    hits = [
        Hit(rank, chunk, document, title, content, score, tuple(map(Ranked, models, ranks, similarities)))
        for chunk, document, title, content, score, models, ranks, similarities, rank in rows
    ]
    counts = {name: sum(name == ranked.model for hit in hits for ranked in hit.models) for name in names}
    searched = [_searched(connection, tables, *query_, wanted, counts[query_[0].name]) for query_ in queries]
    return Answer(tuple(hits), tuple(searched), aggregation)


def _by_model(
    connection: Connection, tables: ModelTables, model: RegisteredModel, vector: np.ndarray, wanted: Wanted
) -> list[Hit]:
    query = sql.SQL("SELECT * FROM {}(%b::vector, %s, %s, %s::jsonb, %s)").format(
        sql.Identifier(tables.schema, "search_chunks")
    )
    values = [_packed(model, vector), wanted.top_k, model.name, _json(wanted.filter), wanted.min_similarity]
    return [
        Hit(rank, chunk, document, title, content, similarity, (Ranked(name, rank, similarity),))
        for chunk, document, title, content, similarity, name, rank in _rows(connection, query, values)
    ]


def _searched(
    connection: Connection, tables: ModelTables, model: RegisteredModel, vector: np.ndarray, wanted: Wanted, hits: int
) -> Searched:
    """What became of one model; where it has given nothing, the database is asked what the threshold has kept back."""
    threshold = model.similarity_threshold if wanted.min_similarity is None else wanted.min_similarity
    if threshold == NO_THRESHOLD:
        threshold = None
    if hits:
        return Searched(model.name, threshold, hits)
    nearest = _by_model(connection, tables, model, vector, Wanted(1, wanted.filter, NO_THRESHOLD))
    return Searched(model.name, threshold, hits, nearest[0].similarity if nearest else None)


def _rows(connection: Connection, query: sql.Composed, values: Sequence[object]) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query, values, prepare=False).fetchall()
    except (errors.UndefinedObject, errors.DataException) as error:  # raised by the functions themselves
        hint = f": {error.diag.message_hint}" if error.diag.message_hint else ""
        raise UsageError(f"{error.diag.message_primary}{hint}") from error
    except errors.UndefinedFunction as error:
        raise FatalError(
            f"search: {error.diag.message_primary}; `vecferry models setup` makes the search functions again"
        ) from error


def _packed(model: RegisteredModel, vector: np.ndarray) -> Packed:
    given = np.asarray(vector, np.float32)
    if given.ndim != 1:
        raise UsageError("a query vector is a list of numbers")
    check_dimensions(model, len(given))
    if not np.isfinite(given).all():
        raise UsageError("the query vector has a component that is not a finite number")
    if model.metric == "cosine":
        given = _directed(given)
    return Packed(wire.pack(given[None], "vector")[0])


def _directed(vector: np.ndarray) -> np.ndarray:
    """The vector; one of length 1 where PostgreSQL's sums of squares, in float32, would overflow or vanish. Raises UsageError where it
    has no direction."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if length == 0:
        raise UsageError("the query vector is all zeros, which have no direction")
    return vector if SUMMED[0] < length < SUMMED[1] else np.asarray(vector / length, np.float32)


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
