"""What is answered where a request cannot be: one JSON shape for every status, ``{"error": "busy", "message": "…"}``."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as AnyHTTPException

from tasks.base.errors import FatalError, NotFound, OverBudget, TransientError, UsageError, VecferryError
from tasks.base.words import counted
from tasks.embedders.interface import RowsRejected

WORDS: Mapping[int, str] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    409: "conflict",
    413: "too_large",
    415: "unsupported",
    422: "invalid",
    429: "busy",
    500: "internal",
    503: "unavailable",
}
"""Of a status, for programs."""
SHOWN = 200
"""Letters of a path that a message shows."""
RETRY_LOST = 2
"""Seconds after which to ask again where the database, or a provider, did not answer."""


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="a word for programs, one for each status", examples=["not_found"])
    message: str = Field(description="what is wrong, and the next step, for people")


class Refused(HTTPException):
    """A request that gets no answer but a problem."""

    def __init__(self, status: int, message: str, retry_after: float | None = None, close: bool = False) -> None:
        headers = {} if retry_after is None else {"retry-after": str(max(1, round(retry_after)))}
        if close:
            headers["connection"] = "close"
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        super().__init__(status, message, headers)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the description: what a route may answer besides its own, and every route may."""
    return {status: {"model": Problem} for status in sorted({400, 401, 403, 408, 413, 415, 422, 429, 503, *statuses})}


def response(refused: AnyHTTPException) -> Response:
    """As it goes to the client. Whatever letters it has: of a text that is no text, the message may quote a part."""
    body = {"error": WORDS.get(refused.status_code, "refused"), "message": str(refused.detail)}
    return Response(json.dumps(body), refused.status_code, dict(refused.headers or {}), "application/json")


def refused(error: Exception) -> AnyHTTPException:
    """The problem that an error is to the client."""
    match error:
        case AnyHTTPException():
            return error
        case RequestValidationError() if isinstance(error.body, bytes):  # it was not read as JSON
            return Refused(415, "send the body as JSON, with the header content-type: application/json")
        case RequestValidationError():
            return Refused(422, _fields(error.errors()))
        case NotFound():
            return Refused(404, str(error))
        case UsageError():
            return Refused(400, str(error))
        case RowsRejected():
            return Refused(422, str(error))
        case TransientError():
            return Refused(503, str(error), RETRY_LOST)
        case OverBudget():
            return Refused(503, str(error), _left_today())
        case FatalError() | VecferryError():
            return Refused(503, str(error))
    return Refused(500, f"{type(error).__name__} in vecferry itself: its log has the traceback")


def answer_problems(app: FastAPI) -> None:
    """Has every error answered in the one shape."""

    async def answer(request: Request, error: Exception) -> Response:
        return response(_of_route(request, error) or refused(error))

    for kind in (AnyHTTPException, RequestValidationError, VecferryError, Exception):
        app.add_exception_handler(kind, answer)


def _of_route(request: Request, error: Exception) -> AnyHTTPException | None:
    """What the framework says of a path, or of a method there, that has no answer."""
    if not isinstance(error, AnyHTTPException) or isinstance(error, Refused) or error.status_code not in (404, 405):
        return None
    path, headers = request.url.path[:SHOWN], dict(error.headers or {})
    if error.status_code == 404:
        what = f"there is nothing at {path}"
    else:
        what = f"{request.method} is not answered at {path}, {headers.get('Allow', 'another method')} is"
    return AnyHTTPException(error.status_code, f"{what}: GET /openapi.json describes what there is", headers)


def _left_today() -> float:
    """Seconds until the next day of UTC, whose budget is whole."""
    now = datetime.now(UTC)
    return (datetime.combine(now.date() + timedelta(1), time(), UTC) - now).total_seconds()


def _fields(errors: Sequence[Any], most: int = 3) -> str:
    lines = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in errors[:most]]
    rest = len(errors) - len(lines)
    return "; ".join([*lines, *([f"and {counted(rest, 'other')}"] if rest else [])])
