"""One connection, guarded where uvicorn leaves it alone.

uvicorn (0.54) waits for ever for the head of a request, keeps every connection that opens, waits
for ever for a reader that does not take its answer, and says what it refuses in plain text. Always
on h11, whose head has a limit; httptools has none.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from headstart.serve.failures import RefusedError
from headstart.serve.settings import RequestLimits


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol with a clock for heads and readers, and a limit of connections."""

    limits: RequestLimits

    def __init__(self, config: Config, *arguments: Any, **options: Any) -> None:
        """As uvicorn makes it; `config.limits` holds the limits."""
        super().__init__(config, *arguments, **options)
        self.limits = config.limits  # type: ignore[attr-defined]
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; refuse where there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(RefusedError("overloaded", "Too many connections.", retry_after_s=1))
        else:
            self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is whole stops its clock."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_head_timer()
        self._stop_reader_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The reader stalls: it has a while to go on."""
        super().pause_writing()
        self._reader_timer = self._reader_timer or self.loop.call_later(
            self.limits.header_timeout_s, self.transport.abort
        )

    def resume_writing(self) -> None:
        """The reader goes on."""
        self._stop_reader_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets an answer of the usual form."""
        self._refuse(RefusedError("bad_http"))

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _watch_head(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        if not waits or self.transport.is_closing():
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_timeout_s, self._end_waiting)

    def _end_waiting(self) -> None:
        self._head_timer = None
        idle = self.timeout_keep_alive_task is not None  # between two requests: uvicorn's own clock
        if not idle:
            seconds = self.limits.header_timeout_s
            message = f"The head of the request took longer than {seconds:g} s."
            self._refuse(RefusedError("body_timeout", message))

    def _refuse(self, refusal: RefusedError) -> None:
        """Answer without the application, unless it answers already, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(raw_answer(refusal))
        self.transport.close()


def raw_answer(refusal: RefusedError) -> bytes:
    """A refusal as the bytes of an answer that closes the connection."""
    body = json.dumps(refusal.body).encode()
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
        *(f"{name}: {value}" for name, value in refusal.headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
