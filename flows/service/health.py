"""``GET /health`` and ``GET /ready``, for what runs the service; they need no token."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from flows.service.problems import Problem
from flows.service.service import Service


class Health(BaseModel):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """It can be sent requests: its models are loaded and its database answers."""

    status: Literal["ready"] = "ready"


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/health")
    async def health() -> Health:
        """Whether the process is alive."""
        return Health()

    @router.get("/ready", responses={429: {"model": Problem}, 503: {"model": Problem}})
    async def ready() -> Ready:
        """Whether requests can be answered: 503 while the database is gone."""
        await service.asked(lambda connection: connection.execute("SELECT 1"))
        return Ready()

    return router
