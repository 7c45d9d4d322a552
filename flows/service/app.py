"""The application: routes, and what stands before them."""

from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

from flows.service import documents, embeddings, health
from flows.service.access import Access
from flows.service.limits import Limits
from flows.service.problems import answer_problems
from flows.service.service import Service

DESCRIPTION = """Embeddings, search and documents of the vectors that vecferry manages. Whatever cannot be answered is answered by
one JSON shape, `{"error", "message"}`; 429, and 503 where it will pass, say after how many seconds to ask again."""


def application(service: Service, token: str | None) -> FastAPI:
    """The app of a service. Its description is at /openapi.json; pages that would load scripts from elsewhere are left out."""
    app = FastAPI(title="vecferry", version=version("vecferry"), description=DESCRIPTION, docs_url=None, redoc_url=None)
    bearer = [Depends(HTTPBearer(auto_error=False))] if token else []  # for the description: Access has asked before
    app.include_router(health.routes(service))
    app.include_router(embeddings.routes(service), dependencies=bearer)
    app.include_router(documents.routes(service), dependencies=bearer)
    answer_problems(app)
    app.add_middleware(Limits, most=service.options.body_bytes, seconds=service.options.timeout)
    app.add_middleware(Access, token=token)  # the last is the first that a request meets
    return app
