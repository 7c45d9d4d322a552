"""How large a request may be, and how long it may take: to arrive, and to be answered."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.service.problems import Refused, response
from tasks.base.words import duration


class Limits:
    """Refuses a body of more than ``most`` bytes, and one that has not arrived after ``seconds``; gives up an answer that is not
    made ``seconds`` later."""

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self.app, self.most, self.seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if len(length) > 18 or (length.isdecimal() and int(length) > self.most):
            await response(self._too_large())(scope, receive, send)
            return
        request = _Request(self, receive, send)
        request.arrived = length == "0" and "transfer-encoding" not in headers
        try:
            async with asyncio.timeout(self.seconds) as request.clock:
                await self.app(scope, request.receive, request.send)
        except TimeoutError:
            if request.answered or not request.clock.expired():
                raise
            await response(self._too_slow(request.arrived))(scope, receive, send)

    def _too_large(self) -> Refused:
        return Refused(413, f"the body has more than {self.most >> 20} MiB, the most that is accepted", close=True)

    def _too_slow(self, arrived: bool) -> Refused:
        if arrived:
            return Refused(
                503,
                f"no answer could be made within {duration(self.seconds)}; what was begun may still be done: ask later",
                self.seconds,
            )
        return Refused(408, f"the request did not arrive within {duration(self.seconds)}", close=True)


class _Request:
    """One request on its way through."""

    clock: asyncio.Timeout

    def __init__(self, limits: Limits, receive: Receive, send: Send) -> None:
        self.limits, self.inner, self.outer = limits, receive, send
        self.read = 0
        self.arrived = self.answered = False

    async def receive(self) -> Message:
        message = await self.inner()
        self.read += len(message.get("body", b""))
        if self.read > self.limits.most:
            raise self.limits._too_large()
        if not self.arrived and not message.get("more_body", False):
            self.arrived = True
            self.clock.reschedule(asyncio.get_running_loop().time() + self.limits.seconds)
        return message

    async def send(self, message: Message) -> None:
        self.answered = True
        await self.outer(message)
