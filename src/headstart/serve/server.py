"""Processes and sockets: bind, start one worker here or several beside, drain on SIGTERM.

On SIGTERM the socket closes, so that new connections are refused; requests in flight are answered
(at most `drain_s`), then everything ends with exit code 0. Several workers share the one socket;
one that dies is replaced, and all end when their parent does.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError, MissingExtraError, UsageError
from headstart.serve.settings import ServeSettings

if TYPE_CHECKING:
    from uvicorn import Config

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
HEALTHCHECK_S = 120  # a worker that still imports torch on a busy machine is not hung
BACKLOG = 256
STARTUP_FAILURE = 3  # the exit code after which uvicorn starts no worker again

Announce = Callable[[str], None]


def check_extra() -> None:
    """Refuse to begin without the packages of the extra.

    Raises:
        MissingExtraError: one is missing.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"The service needs {', '.join(missing)}. Install it: pip install 'headstart[serve]'"
        )


def serve(settings: ServeSettings, announce: Announce = print) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        settings: of the service.
        announce: gets one line once the port is open.

    Raises:
        HeadstartError: the bundle, the port or a package is not as it must be.
    """
    check_extra()
    from headstart.serve.keeping import Keeper
    from headstart.serve.model import check_bundle

    facts = check_bundle(settings)
    if settings.keep is not None:
        Keeper(settings.keep)
    listener = bind(settings)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    announce(f"Serving {facts} on http://{shown}:{port} (API: /docs). Stop with Ctrl-C.")
    if settings.workers == 1:
        serve_here(settings, listener)
    else:
        serve_beside(settings, listener)


def bind(settings: ServeSettings) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: the port is taken or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"There is no address '{settings.host}' to listen on.") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"Port {settings.port} of '{settings.host}' is in use. Choose another --port, "
                "or stop what uses it."
            ) from error
        raise UsageError(
            f"Cannot listen on port {settings.port} of '{settings.host}': {error.strerror}. "
            "Choose another --host or --port."
        ) from error
    return listener


def server_config(settings: ServeSettings, factory: Callable[[], Any]) -> Config:
    """Uvicorn's configuration, ours in it."""
    from uvicorn import Config

    from headstart.serve.logs import log_settings
    from headstart.serve.protocol import GuardedProtocol

    config = Config(
        factory,
        factory=True,
        interface="asgi3",
        http=GuardedProtocol,
        ws="none",
        lifespan="on",
        loop="asyncio",
        workers=settings.workers,
        log_config=log_settings(),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        timeout_worker_healthcheck=HEALTHCHECK_S,
        h11_max_incomplete_event_size=settings.requests.max_header_bytes,
    )
    config.limits = settings.requests  # type: ignore[attr-defined]
    return config


def serve_here(settings: ServeSettings, listener: socket.socket) -> None:
    """One worker: this process.

    Raises:
        HeadstartError: the model could not be loaded.
    """
    from uvicorn import Server

    from headstart.serve.app import create_app

    failures: list[Exception] = []

    def fail(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    server = Server(server_config(settings, lambda: create_app(settings, fail)))
    with signals_end_quietly():
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


@contextlib.contextmanager
def signals_end_quietly() -> Iterator[None]:
    """Uvicorn raises the signal that ended it once more; it shall not kill us."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class WorkerApp:
    """The application of one of several workers; travels to its process."""

    settings: ServeSettings

    def __call__(self) -> Any:
        """Made in the worker."""
        from headstart.serve.app import create_app

        threading.Thread(target=end_with_parent, daemon=True).start()
        return create_app(self.settings, end_worker)


def end_with_parent() -> None:
    """Drain when the parent has ended, however it ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def end_worker(_: Exception) -> None:
    """A worker without a model; the log told why."""
    os._exit(STARTUP_FAILURE)


def serve_beside(settings: ServeSettings, listener: socket.socket) -> None:
    """Several workers: processes beside this one, which watches them.

    Raises:
        HeadstartError: the workers could not load the model.
    """
    from headstart.serve.workers import Workers

    folder = tempfile.mkdtemp(prefix="headstart-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        workers = Workers(server_config(settings, WorkerApp(settings)), [listener])
        workers.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if workers.failed:
        raise HeadstartError("The workers could not load the model; the log above says why.")
