"""Connections of clients that do not finish the head of a request: uvicorn would keep them for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

BODY = b'{"error": "too_slow", "message": "the head of the request did not arrive in time"}'
ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


def cutting_off(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes a connection on which a head has not arrived whole ``seconds`` after it was due."""

    class CuttingOff(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        cut: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._wait()
            else:
                self._wait_no_more()

        def connection_lost(self, exc: Exception | None) -> None:
            self._wait_no_more()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self.cut is None:
                self.cut = asyncio.get_running_loop().call_later(seconds, self._cut_off)

        def _wait_no_more(self) -> None:
            if self.cut is not None:
                self.cut.cancel()
                self.cut = None

        def _cut_off(self) -> None:
            if not self.transport.is_closing():
                self.transport.write(ANSWER)
                self.transport.close()

    return CuttingOff
