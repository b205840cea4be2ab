"""The parent of several workers: uvicorn's, with what draining and counting need."""

from __future__ import annotations

import socket

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from headstart.serve.logs import log_event


class Workers(Multiprocess):
    """Watches the workers.

    Attributes:
        failed: whether one could not start, which ended all.
    """

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        """Start nothing yet."""
        super().__init__(config, sockets)
        self.failed = False
        self._stopping = False

    def handle_int(self) -> None:
        """Drain."""
        self._stopping = True
        super().handle_int()

    def handle_term(self) -> None:
        """Drain."""
        self._stopping = True
        super().handle_term()

    def terminate_all(self) -> None:
        """Close the parent's hold on the socket too: it would queue clients for nobody."""
        for listener in self.sockets:
            listener.close()
        self.failed = not self._stopping
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Replace dead workers; what they showed as present values is taken away."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(pid)  # type: ignore[no-untyped-call]
            log_event("worker_replaced", worker=pid)
