"""Start the page as a process of its own, on this computer only, and end it cleanly.

Every setting goes on Streamlit's command line, which outranks any configuration file of the user:
bound to loopback, no usage statistics, no file watcher, small uploads, no details of errors in the
page, and the colours of the report.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError, MissingExtraError, UsageError
from headstart.studio import entry

ADDRESS = "127.0.0.1"
PORT = 8501
UPLOAD_MIB = 25  # a file
START_S = 60.0
END_S = 5.0
LIGHT = {
    "primaryColor": "#1a5a96", "backgroundColor": "#f6f6f3", "secondaryBackgroundColor": "#ffffff",
    "textColor": "#1b222c", "linkColor": "#1a5a96", "borderColor": "#d9dcdc",
}  # fmt: skip
DARK = {
    "primaryColor": "#82b7ee", "backgroundColor": "#12151a", "secondaryBackgroundColor": "#1a1f26",
    "textColor": "#e6e9ee", "linkColor": "#82b7ee", "borderColor": "#303741",
}  # fmt: skip
OPTIONS = {
    "server.address": ADDRESS,
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": str(UPLOAD_MIB),
    "server.enableCORS": "true",  # Streamlit's name for refusing other origins
    "server.enableXsrfProtection": "true",
    "server.enableAgentApi": "false",
    "server.baseUrlPath": "",
    "server.enableStaticServing": "false",
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "logger.level": "error",
    "logger.hideWelcomeMessage": "true",
    "global.developmentMode": "false",
    **{f"theme.light.{name}": value for name, value in LIGHT.items()},
    **{f"theme.dark.{name}": value for name, value in DARK.items()},
}


def check_extra() -> None:
    """Refuse to start without Streamlit.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec("streamlit") is None:
        raise MissingExtraError(
            "The page needs Streamlit, which is not installed. "
            "Install it: pip install 'headstart[studio]'"
        )


def free_port(wanted: int) -> int:
    """The port to serve on; 0 takes any free one.

    Raises:
        UsageError: it cannot be had.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":  # one that was closed a moment ago may be taken again
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, wanted))
        except OSError as error:
            why = "is in use" if not isinstance(error, PermissionError) else "is not allowed"
            raise UsageError(
                f"The port {wanted} {why} on this computer. Choose another one, as in "
                f"--port {wanted + 1 if wanted < 65535 else PORT}, or --port 0 for any free one."
            ) from error
        port: int = probe.getsockname()[1]
        return port


def server_command(place: Path, port: int) -> list[str]:
    """The command of the page's process."""
    script = Path(entry.__file__).with_name("headstart_studio.py")
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    options += [f"--server.allowedHosts={host}" for host in (ADDRESS, "localhost")]
    return [
        *(sys.executable, "-m", "headstart.studio", str(script), *options),
        *(f"--server.port={port}", "--", str(place.resolve())),
    ]


def serve(place: Path, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or SIGTERM; its process never outlives this one's end.

    Args:
        place: folder of a run, a bundle, or of runs.
        port: to serve on, free.
        ready: gets the address once the page answers.

    Raises:
        HeadstartError: the server ended by itself, or did not begin.
    """
    address = f"http://{ADDRESS}:{port}"
    with ended_by_signals():
        process = subprocess.Popen(server_command(place, port), stdin=subprocess.DEVNULL)
        try:
            wait_until_ready(process, address)
            ready(address)
            code = process.wait()
        except KeyboardInterrupt:
            return
        finally:
            end(process)
    raise HeadstartError(f"The page ended by itself (exit code {code}). See its messages above.")


def wait_until_ready(process: subprocess.Popen[bytes], address: str) -> None:
    """Wait until the server answers.

    Raises:
        HeadstartError: it ended before, or took too long.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        code = process.poll()
        if code is not None:
            raise HeadstartError(
                f"The page did not start (exit code {code}). See its messages above."
            )
        if answers(address):
            return
        time.sleep(0.05)
    raise HeadstartError(
        f"The page did not start within {START_S:.0f} s. Is this computer very busy? Try again."
    )


def answers(address: str) -> bool:
    """Whether the server says that it is well; no proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/_stcore/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """End the process, gently first."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
