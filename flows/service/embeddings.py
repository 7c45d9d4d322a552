"""``POST /embeddings/generate``: the vector of a text, or of an image in a file."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile

from flows.service.answers import json
from flows.service.problems import Refused, responses
from flows.service.service import Service, bare
from flows.service.workers import Worker, kind_of
from tasks.embedders.interface import Item

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
MODEL = Field(default=None, min_length=1, max_length=500, description="a model; by default the active one")


class Generate(BaseModel):
    """A text to be embedded."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1, description="the text")
    model: str | None = MODEL


class GenerateUpload(BaseModel):
    """An image to be embedded, or a text."""

    model_config = ConfigDict(extra="forbid")
    file: bytes | None = Field(default=None, description="the file of an image", json_schema_extra={"format": "binary"})
    text: str | None = Field(default=None, min_length=1, description="a text, in place of a file")
    model: str | None = MODEL


class Generated(BaseModel):
    """A vector, and what made it."""

    dimensions: int
    model: str = Field(description="the model's name without its provider", examples=["MegaDescriptor-L-384"])
    name: str = Field(description="its name in full", examples=["timm/MegaDescriptor-L-384"])
    space: str = Field(description="the fingerprint of its space: vectors of one space can be compared")
    embedding: list[float]


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": GenerateUpload.model_json_schema()},
            "application/json": {"schema": Generate.model_json_schema()},
        },
    }
}


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["embeddings"])

    @router.post(
        "/embeddings/generate", response_model=Generated, responses=responses(404, 409, 415), openapi_extra=BODY
    )
    async def generate(request: Request) -> Response:
        """The vector of a text or an image, by the model named, or the one that is active for it."""
        item, model = await _item(request)
        kind = kind_of(item)
        worker = await service.model(model) if model else await service.default_model(kind)
        made = await asyncio.wrap_future(worker.submit([item]))
        if made.rejected:
            raise Refused(422, f"there is no vector of this {kind}: {made.rejected[0].message}")
        return json(_answer(worker, made.vectors[0]))

    return router


def _answer(worker: Worker, vector: Any) -> dict[str, Any]:
    space = worker.loaded().space
    return {
        "dimensions": space.dimensions,
        "model": bare(worker.name),
        "name": worker.name,
        "space": space.fingerprint,
        "embedding": vector,
    }


async def _item(request: Request) -> tuple[Item, str | None]:
    """What is to be embedded, and by which model. Raises Refused and RequestValidationError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in FORMS:
        async with request.form(max_files=1, max_fields=2) as form:
            upload = await _upload([(key, value) for key, value in form.multi_items()])
        if (upload.file is None) == (upload.text is None):
            raise Refused(422, "send either a file with an image, or a text")
        return upload.text if upload.file is None else upload.file, upload.model  # type: ignore[return-value]
    if kind != "application/json":
        raise Refused(415, f"send {FORMS[0]} with a file, or application/json with a text")
    try:
        asked = Generate.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    return asked.text, asked.model


async def _upload(fields: list[tuple[str, str | UploadFile]]) -> GenerateUpload:
    given: dict[str, str | bytes] = {}
    for name, value in fields:
        if name in given:
            raise Refused(422, f"{name}: given twice")
        if name not in GenerateUpload.model_fields and not isinstance(value, str):
            raise Refused(422, f"{name}: there is no such field; the image is sent as file")
        if (name == "file") == isinstance(value, str):
            raise Refused(422, f"{name}: {'must be a file' if name == 'file' else 'must be a text, and no file'}")
        given[name] = value if isinstance(value, str) else await value.read()
    try:
        return GenerateUpload.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
