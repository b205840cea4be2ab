"""The gate before every request: who may ask, how much may come, what is written down.

Pure ASGI, so that it sees the body before anything parses it. Bytes are counted while they stream,
a body has a deadline, and the sum of all bodies in memory is bounded. An answer that is ready
before the body is read says `connection: close`, and the gate reads on a little, because closing at
once would reset the connection and lose the answer on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from time import monotonic, perf_counter
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect

from headstart.serve.failures import RefusedError
from headstart.serve.logs import log_event
from headstart.serve.service import Service
from headstart.serve.settings import LOOPBACK_NAMES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PREDICT = "/predict"
OPEN_TO_ALL = ("/healthz", "/readyz")
ROUTES = (PREDICT, *OPEN_TO_ALL, "/metrics", "/model", "/docs", "/openapi.json")
EXCHANGE = "headstart.exchange"
LINGER_S, LINGER_BYTES = 2.0, 4 << 20
GONE = 499  # what nginx writes down for a client that left; never sent
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"referrer-policy", b"no-referrer"),
]


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: App, service: Service) -> None:
        """Stand before `app`."""
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(self.service, scope, receive, send)
        scope[EXCHANGE] = exchange
        try:
            exchange.admit()
            await self.app(scope, exchange.receive, exchange.send)
        except RefusedError as refusal:
            await exchange.refuse(refusal)
        except Exception:  # the last line of defence: logged, and told without details
            log_event("defect", logging.ERROR, request=exchange.number, traceback=True)
            await exchange.refuse(RefusedError("internal"))
        finally:
            exchange.close()


class Exchange:
    """One request and its answer."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the head of a request."""
        self.service = service
        self.scope = scope
        self.number = secrets.token_hex(8)
        self.images = 0
        self.names: list[str] = []
        self.code = ""
        self.status = 0
        self._receive, self._send = receive, send
        self._headers = {k.lower(): v for k, v in scope["headers"]}
        self._begun = perf_counter()
        self._deadline = monotonic() + service.settings.requests.body_timeout_s
        self._bytes = 0
        self._body_done = not self._has_body()
        self._cut = False

    @property
    def route(self) -> str:
        """The path where it is one of ours, else 'other': metrics must stay few."""
        path = str(self.scope["path"])
        return path if path in ROUTES else "other"

    def admit(self) -> None:
        """Judge a request by its head.

        Raises:
            RefusedError: it may not be made, is too large, or comes at a wrong time.
        """
        settings = self.service.settings
        if self._head_bytes() > settings.requests.max_header_bytes:
            raise RefusedError("bad_http")
        if self.route not in OPEN_TO_ALL:
            self._check_token(settings.token)
            if not settings.token:
                self._check_host()
                self._check_origin()
        if self._headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RefusedError("unsupported_body", "The body must not be compressed.")
        limit = settings.requests.max_request_bytes
        if self._declared() > limit:
            raise too_large(limit)
        if self.route == PREDICT and self.scope["method"] == "POST":
            self.service.check_open()

    async def receive(self) -> Message:
        """The next piece of the body, counted and in time.

        Raises:
            RefusedError: the body is too large or too slow, or too much is being received by all.
        """
        if self._body_done:
            return await self._receive()
        try:
            async with asyncio.timeout(self._deadline - monotonic()):
                message = await self._receive()
        except TimeoutError as error:
            seconds = self.service.settings.requests.body_timeout_s
            raise RefusedError(
                "body_timeout", f"The body took longer than {seconds:g} s to arrive."
            ) from error
        if message["type"] == "http.disconnect":
            self._body_done = True
            self.status = GONE
            return message
        self._count(len(message.get("body", b"")))
        self._body_done = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on, with our headers; read on a little where the body was not read."""
        if message["type"] == "http.response.start":
            self.status = self.status or message["status"]
            self._cut = not self._body_done
            headers = [*message["headers"], *_SECURITY, (b"x-request-id", self.number.encode())]
            if self._cut:
                headers.append((b"connection", b"close"))
            await self._send({**message, "headers": headers})
        elif self._cut and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    async def while_there(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of some work, which is given up when the client leaves.

        Raises:
            ClientDisconnect: it left.
        """
        task, leaving = asyncio.create_task(work), asyncio.create_task(self._left())
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self.status = GONE
            raise ClientDisconnect
        finally:
            leaving.cancel()
            task.cancel()

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def refuse(self, refusal: RefusedError) -> None:
        """Answer with an error, where nothing was answered yet."""
        if self.status and self.status != GONE:
            return
        self.code = refusal.code
        self.service.metrics.refusals.labels(refusal.code).inc()
        body = json.dumps(refusal.body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        listed = [(k.encode(), v.encode()) for k, v in (headers | refusal.headers).items()]
        await self.send(
            {"type": "http.response.start", "status": refusal.status, "headers": listed}
        )
        await self.send({"type": "http.response.body", "body": body})

    def close(self) -> None:
        """Give back what the request held, and write its line."""
        self.service.buffered -= self._bytes
        seconds = perf_counter() - self._begun
        status = self.status or GONE
        metrics = self.service.metrics
        metrics.requests.labels(self.route, str(status)).inc()
        metrics.request_seconds.labels(self.route).observe(seconds)
        if self.route in OPEN_TO_ALL and status < 400:
            return  # asked every few seconds
        fields: dict[str, object] = {
            "request": self.number,
            "method": self.scope["method"],
            "route": self.route,
            "status": status,
            "seconds": round(seconds, 4),
            "bytes": self._bytes,
            "images": self.images,
        }
        if self.code:
            fields["code"] = self.code
        if self.service.settings.log_names and self.names:
            fields["names"] = self.names
        log_event("request", logging.INFO, **fields)

    def _check_token(self, token: str) -> None:
        if not token:
            return
        scheme, _, given = self._headers.get(b"authorization", b"").partition(b" ")
        same = hmac.compare_digest(given.strip(), token.encode())
        if scheme.lower() != b"bearer" or not same:
            raise RefusedError("unauthorized", "Send the token: 'Authorization: Bearer TOKEN'.")

    def _check_host(self) -> None:
        """Refuse foreign names: a page could point one of its own at this machine."""
        name, settings = name_in(self._host), self.service.settings
        # An address is nobody's name: a page that points one here still comes with its name.
        if not (self._is_named(name) or (not settings.is_local and is_address(name))):
            raise RefusedError(
                "host_not_allowed",
                "The service may not be called by this name; see --allow-host and --token.",
            )

    def _check_origin(self) -> None:
        """Refuse what a page of another site sends: browsers name it and ask nobody before."""
        origin = self._headers.get(b"origin")
        if origin is None:
            return
        site = origin.decode("latin-1").lower().rpartition("//")[2]
        if site != self._host and not self._is_named(name_in(site)):
            raise RefusedError(
                "origin_not_allowed",
                "A page of another site may not use the service; see --allow-host and --token.",
            )

    @property
    def _host(self) -> str:
        return str(self._headers.get(b"host", b""), "latin-1").lower()

    def _is_named(self, name: str) -> bool:
        settings = self.service.settings
        return name in (*LOOPBACK_NAMES, settings.host, *settings.allowed_hosts)

    def _head_bytes(self) -> int:
        """The head's size: h11 bounds one that arrives in pieces only."""
        listed = sum(len(name) + len(value) + 4 for name, value in self.scope["headers"])
        return listed + len(self.scope.get("raw_path", b"")) + len(self.scope["query_string"])

    def _declared(self) -> int:
        value = self._headers.get(b"content-length", b"0")
        return int(value) if value.isdigit() else 0

    def _has_body(self) -> bool:
        return b"transfer-encoding" in self._headers or self._declared() > 0

    def _count(self, count: int) -> None:
        self._bytes += count
        self.service.buffered += count
        limits = self.service.settings.requests
        if self._bytes > limits.max_request_bytes:
            raise too_large(limits.max_request_bytes)
        if self.service.buffered > limits.buffer_bytes:
            raise RefusedError("overloaded", "Too much is being received at once.", retry_after_s=1)

    async def _linger(self) -> None:
        """Read what is still coming and forget it, for a short time."""
        if b"expect" in self._headers:  # the client waits for leave to send, and gets none
            return
        left = LINGER_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return


def name_in(host: str) -> str:
    """'name:port' or '[::1]:port' -> the name alone."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.strip("[]")


def is_address(name: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def too_large(limit: int) -> RefusedError:
    """The refusal of a body."""
    return RefusedError("body_too_large", f"A request may have {limit:,} bytes, this has more.")
