"""The command itself: workers, draining on SIGTERM, and what it says when it cannot begin."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
from live import encoded

import headstart.cli.app
from headstart.errors import HeadstartError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are other ones there")


@contextmanager
def command(*arguments, **environment):
    """`headstart serve`, and its address once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headstart", "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process, re.search(r"http://[0-9.:]+", process.stdout.readline()).group()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def wait_ready(url, workers=1):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            text = httpx.get(f"{url}/metrics", timeout=30).text
        except httpx.HTTPError:
            text = ""
        if f"headstart_ready_workers {workers}.0" in text:
            return
        time.sleep(0.2)
    raise AssertionError("not ready in time")


def test_two_workers_count_as_one_and_drain(served_bundle):
    with command(served_bundle, "--workers", 2, "--decoders", 1, "--engine", "torch") as (
        process, url,
    ):  # fmt: skip
        wait_ready(url, workers=2)
        picture = encoded()
        for _ in range(20):  # a new connection each time: both get some
            sent = [("files", ("a.png", picture, "image/png"))]
            assert httpx.post(f"{url}/predict", files=sent, timeout=60).status_code == 200
        for _ in range(4):
            text = httpx.get(f"{url}/metrics", timeout=60).text
            assert "headstart_images_total 20.0" in text
            assert 'headstart_requests_total{route="/predict",status="200"} 20.0' in text
        statuses = []

        def slow():
            """A body that is under way while the service is told to end."""
            host, port = url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                head = (
                    "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                    f"Content-Length: {len(picture)}\r\n\r\n"
                )
                connection.sendall(head.encode() + picture[:100])
                begun.wait(60)
                time.sleep(0.7)
                connection.sendall(picture[100:])
                statuses.append(connection.recv(65536).split()[1])

        begun = threading.Event()
        threads = [threading.Thread(target=slow) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        begun.set()
        for thread in threads:
            thread.join()
        assert process.wait(60) == 0
        assert statuses == [b"200"] * 6
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz", timeout=10)


def run_here(monkeypatch, capsys, *arguments):
    """The command in this process, for errors before anything is served."""
    monkeypatch.setattr(sys, "argv", ["headstart", "serve", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        headstart.cli.app.main()
    return stopped.value.code, capsys.readouterr().err


def test_what_it_says_when_it_cannot_begin(served_bundle, tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = run_here(monkeypatch, capsys, served_bundle, "--port", port)
    assert code == 2
    assert f"Port {port} of '127.0.0.1' is in use" in err
    for arguments, message in (
        ([tmp_path / "none"], "there is no such folder"),
        ([tmp_path], "is no bundle"),
        ([served_bundle, "--expect-digest", "00"], "is not the expected one"),
        ([served_bundle, "--host", "0.0.0.0"], "without a token"),
        ([served_bundle, "--host", "host.invalid", "--insecure"], "no address"),
        ([served_bundle, "--engine", "onnx"], "has no model.onnx"),
        ([served_bundle, "--formats", "EPS"], "`formats` must be some of"),
    ):
        code, err = run_here(monkeypatch, capsys, *arguments)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


def test_a_missing_extra_names_its_command(served_bundle, monkeypatch, capsys):
    from headstart.serve import server

    monkeypatch.setattr(server, "NEEDED", ("no_such_package",))
    code, err = run_here(monkeypatch, capsys, served_bundle)
    assert code == 2
    assert "pip install 'headstart[serve]'" in err


def test_a_model_that_cannot_be_loaded_ends_the_command(served_bundle, monkeypatch):
    from headstart.serve import server, service
    from headstart.serve.settings import ServeSettings

    def fail(_):
        raise HeadstartError("no such thing")

    monkeypatch.setattr(service, "load_model", fail)
    with pytest.raises(HeadstartError, match="no such thing"):
        server.serve(ServeSettings(bundle=str(served_bundle), port=0, engine="torch"), str)
