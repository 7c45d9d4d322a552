"""What is answered, as the description has it and as it is sent."""

from typing import Any

import orjson
from fastapi import Response
from pydantic import BaseModel, Field

Key = int | str


class Ranked(BaseModel):
    """What one model says of a chunk."""

    model: str
    rank: int
    similarity: float


class Hit(BaseModel):
    """A chunk, by its rank."""

    rank: int
    chunk_id: Key
    document_id: Key
    title: str | None
    content: str
    score: float = Field(description="its similarity; of several models the sum of 1 / (60 + rank)")
    models: list[Ranked]


class Searched(BaseModel):
    """A model that was asked."""

    model: str
    threshold: float | None
    hits: int
    nearest: float | None


class Answer(BaseModel):
    """The nearest chunks."""

    hits: list[Hit]
    searched: list[Searched]
    aggregation: str | None
    notes: list[str] = Field(description="why a model has given nothing")


class SearchModel(BaseModel):
    """A model that can be searched, and what it covers."""

    model: str
    dimensions: int
    active: bool
    similarity_threshold: float | None
    chunks: int
    with_vector: int
    coverage: float = Field(description="the share of the chunks that have a vector")


class SearchModels(BaseModel):
    models: list[SearchModel]


class Covered(BaseModel):
    """What a model has of a document."""

    model: str
    dimensions: int
    active: bool
    chunks: int


class DocumentEmbeddings(BaseModel):
    """A document's chunks, and how many of them each model has a vector of."""

    document_id: Key
    title: str | None
    chunks: int
    models: list[Covered]


class Updated(BaseModel):
    """Chunks that have a vector of the model now."""

    document_id: Key
    model: str
    chunks: int


class Created(BaseModel):
    """A document that was written."""

    document_id: Key
    model: str


class FlowRun(BaseModel):
    """Work that takes long, and goes on by itself."""

    id: str
    name: str
    url: str | None = Field(description="where Prefect's pages show it")


class Started(BaseModel):
    flow_run: FlowRun


def json(value: Any, status: int = 200) -> Response:
    """Dataclasses, arrays and keys of any type included; a number that is not finite is null."""
    return Response(
        orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY),
        status,
        {"content-type": "application/json"},
    )
