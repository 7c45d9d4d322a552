"""``/api/v1``: search, documents, and the models of both."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from flows.service import answers, long_work
from flows.service.answers import json
from flows.service.bodies import DocumentKey, Migration, Name, NewDocument, Search
from flows.service.problems import responses
from flows.service.service import Service
from tasks.runs import registry
from tasks.stores.postgres.model_tables import Roles

LONG = 500
"""Chunks of a document from which on its vectors are made by a flow run."""


def routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/api/v1")
    client = service.client

    @router.get("/models/search", tags=["search"], response_model=answers.SearchModels, responses=responses(404))
    async def models() -> Response:
        """The models that can be searched, and what each covers."""
        known = await service.in_thread(client.models)
        return json({"models": [_status(model) for model in known if model.searched]})

    @router.post("/search", tags=["search"], response_model=answers.Answer, responses=responses(404, 409))
    async def search(asked: Search) -> Response:
        """The nearest chunks to a text or a vector, by one model or by several."""
        run = service.in_thread if asked.query is None else service.with_models
        answer = await run(lambda: _searched(service, asked))
        return json(
            {
                "hits": answer.hits,
                "searched": answer.searched,
                "aggregation": answer.aggregation,
                "notes": answer.notes,
            }
        )

    @router.post(
        "/documents", tags=["documents"], status_code=201, response_model=answers.Created, responses=responses(404, 409)
    )
    async def create(document: NewDocument) -> Response:
        """Write a document, its chunks, and their vectors."""

        def write() -> dict[str, Any]:
            model = _usable(service, document.model)
            key = client.ingest_document(document.title, document.content, model, document.metadata)
            return {"document_id": key, "model": model}

        return json(await service.with_models(write), 201)

    @router.get(
        "/documents/{document_id}/embeddings",
        tags=["documents"],
        response_model=answers.DocumentEmbeddings,
        responses=responses(404),
    )
    async def embeddings(document_id: DocumentKey) -> Response:
        """How many of a document's chunks each model has a vector of."""
        return json(await service.in_thread(lambda: client.document_embeddings(document_id)))

    @router.put(
        "/documents/{document_id}/embeddings",
        tags=["documents"],
        response_model=answers.Updated,
        responses={**responses(404, 409), 202: {"model": answers.Started}},
    )
    async def update(document_id: DocumentKey, model: Annotated[Name | None, Query()] = None) -> Response:
        """Give a document's chunks vectors of a model: at once, and of a long document by a flow run."""

        def write() -> Response:
            name = client.model_named(model)
            there = client.document_embeddings(document_id)
            if there.chunks > LONG:
                return _started(service, {"target_model": name, "documents": {"ids": [str(there.document_id)]}})
            chunks = client.update_document_embeddings(document_id, _usable(service, name))
            return json({"document_id": there.document_id, "model": name, "chunks": chunks})

        return await service.with_models(write)

    @router.post(
        "/migrations",
        tags=["documents"],
        status_code=202,
        response_model=answers.Started,
        responses=responses(404, 409),
    )
    async def migrate(asked: Migration) -> Response:
        """Give documents vectors of another model, by a flow run."""

        def begin() -> Response:
            source = {"source_model": client.model_named(asked.source_model)} if asked.source_model else {}
            some = {"documents": {"ids": asked.documents}} if asked.documents else {}
            return _started(service, {"target_model": client.model_named(asked.target_model), **source, **some})

        return await service.with_models(begin)

    return router


def _status(model: Any) -> dict[str, Any]:
    names = ("model", "dimensions", "active", "similarity_threshold", "chunks", "with_vector")
    share = model.with_vector / model.chunks if model.chunks else 1.0
    return {name: getattr(model, name) for name in names} | {"coverage": share}


def _searched(service: Service, asked: Search) -> Any:
    if asked.query is not None:
        for name in asked.models or ():
            _usable(service, name)
        if not asked.models:
            _usable(service, asked.model)
    wanted: dict[str, Any] = {"top_k": asked.top_k, "filter": asked.filter, "min_similarity": asked.min_similarity}
    if asked.models or asked.vectors:
        return service.client.search_multi_model(
            asked.query, asked.models or (), asked.aggregation, vectors=asked.vectors, **wanted
        )
    return service.client.search(asked.query, asked.model, vector=asked.vector, **wanted)


def _usable(service: Service, name: str | None) -> str:
    """The whole name of a model, or of the active one, that is loaded. Raises Refused, 503, where it cannot be."""
    named = service.client.model_named(name)
    if not named.startswith(f"{registry.UNKNOWN}/"):  # what can be done without one is the client's to know
        service.models.worker(named).usable()
    return named


def _started(service: Service, parameters: dict[str, Any]) -> Response:
    roles = {name: given for name, given in asdict(service.options.roles or Roles()).items() if given}
    given = {**parameters, "database": service.options.database, **({"roles": roles} if roles else {})}
    return json({"flow_run": long_work.start(given)}, 202)
