"""What the open internet sends, in short: the long campaign is `benchmarks/abuse.py`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from hostile import FORM_TYPE, TRAVERSALS, bombs, file_part, form, mutations, odd_forms
from live import encoded

from headstart.data import DecodingError
from headstart.records import Preprocessing
from headstart.serve.decoders import Decoders
from headstart.serve.failures import FAILURES, RefusedError
from headstart.serve.metrics import ServiceMetrics
from headstart.serve.settings import ServeSettings

PLAIN = {"content-type": "application/octet-stream"}


def check(response):
    """200, or a 4xx whose code is in the table."""
    if response.status_code == 200:
        return "answered"
    assert 400 <= response.status_code < 500, response.text
    code = response.json()["error"]["code"]
    assert FAILURES[code].status == response.status_code
    return code


def check_works(live):
    response = live.client.post("/predict", content=encoded(), headers=PLAIN)
    assert response.status_code == 200


def test_mutated_pictures(live):
    codes = [
        check(live.client.post("/predict", content=data, headers=PLAIN)) for data in mutations(150)
    ]
    assert {"answered", "undecodable_image", "unsupported_format"} <= set(codes)
    check_works(live)


def resident_bytes() -> int:
    """Of this process and all its children, as the kernel tells."""
    total, found = 0, [os.getpid()]
    while found:
        pid = found.pop()
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return total


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_bombs_are_refused_in_little_memory(live):
    check_works(live)
    small = [(name, data) for name, data in bombs() if len(data) <= 60_000]
    assert len(small) >= 20
    before = resident_bytes()
    for name, data in small:
        code = check(live.client.post("/predict", content=data, headers=PLAIN))
        assert code not in ("decoding_timeout", "decoder_crashed"), name
        if "blown up" not in name and "2^31 frames" not in name:
            assert code != "answered", name
        assert resident_bytes() - before < 256 << 20, name
    check_works(live)


def test_there_are_thirty_bombs():
    assert len({name for name, _ in bombs()}) == 30


@pytest.mark.parametrize("number", range(15))
def test_odd_forms(live, number):
    name, body = odd_forms(encoded())[number]
    code = check(live.client.post("/predict", content=body, headers={"content-type": FORM_TYPE}))
    if name in ("nested multipart", "a name of 7 kB", "a name of nonsense"):
        return
    assert code != "answered", name


def test_names_lead_nowhere(live):
    for name in TRAVERSALS:
        body = form(file_part(encoded(), name.replace(b'"', b"")))
        response = live.client.post("/predict", content=body, headers={"content-type": FORM_TYPE})
        if check(response) == "answered":
            told = response.json()["predictions"][0]["name"]
            assert "/" not in told
            assert "\\" not in told.replace("\\x", "")
            assert told.isprintable()
    check_works(live)


def read_all(connection: socket.socket) -> bytes:
    content = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return content
        if not piece:
            return content
        content += piece


def answered(raw: bytes) -> tuple[int, str]:
    """Status and code of a raw answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_code(live, sent):
    with live.raw() as connection:
        connection.sendall(sent)
        assert answered(read_all(connection)) == (400, "bad_http")


def test_heads_and_bodies_that_trickle_are_ended(live):
    begun = time.monotonic()
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with live.raw() as silent, live.raw() as slow_head, live.raw() as slow_body:
        slow_body.sendall(head + b"Content-Length: 1000\r\n\r\n")
        slow_head.sendall(b"GET /mod")
        for _ in range(12):
            time.sleep(0.1)
            try:
                slow_body.sendall(b"x")
                slow_head.sendall(b"e")
            except OSError:
                break
        assert answered(read_all(silent)) == (408, "body_timeout")
        assert answered(read_all(slow_head)) == (408, "body_timeout")
        assert answered(read_all(slow_body)) == (408, "body_timeout")
    assert time.monotonic() - begun < 15
    check_works(live)


def test_bytes_are_counted_while_they_stream(live):
    def endless():
        for _ in range(10_000):
            yield b"\x00" * 65_536

    with live.raw() as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        sent = 0
        try:
            for piece in endless():
                connection.sendall(b"10000\r\n" + piece + b"\r\n")
                sent += len(piece)
        except OSError:
            pass
        assert sent < 64 << 20
    check_works(live)
    wait_until(lambda: live.service.buffered == 0)


def test_too_many_connections_get_503(live):
    crowd = [live.raw() for _ in range(21)]
    try:
        with live.raw() as late:
            assert answered(read_all(late)) == (503, "overloaded")
    finally:
        for connection in crowd:
            connection.close()
    time.sleep(0.3)
    check_works(live)


def test_clients_that_vanish_leave_nothing_behind(live):
    body = form(file_part(encoded()), file_part(encoded(1)))
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        + FORM_TYPE.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    )  # fmt: skip
    for cut in (0, 10, len(body) // 2, len(body) - 1, len(body)):
        with live.raw() as connection:
            connection.sendall(head + body[:cut])
    deadline = time.monotonic() + 10
    while (live.service.waiting or live.service.buffered) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (live.service.waiting, live.service.buffered) == (0, 0)
    check_works(live)


def test_the_work_of_a_client_that_left_is_given_up(live):
    batcher = live.service._batcher
    answer, go_on, seen = batcher.answer, threading.Event(), []

    def slow(pixels):
        seen.append(len(pixels))
        go_on.wait(20)
        return answer(pixels)

    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(encoded()) + encoded()
    batcher.answer, batcher.max_batch = slow, 1
    try:
        crowd = [live.raw() for _ in range(8)]
        for connection in crowd:
            connection.sendall(whole)
        wait_until(lambda: live.service.waiting == 8 and seen)
        for connection in crowd:
            connection.close()
        wait_until(lambda: live.service.waiting == 0)
    finally:
        go_on.set()
        batcher.answer, batcher.max_batch = answer, 32
    check_works(live)
    assert len(seen) == 1


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_hanging_decoder_is_killed_and_replaced(live, monkeypatch):
    pool = live.service._decoders.pool
    check_works(live)
    os.kill(pool._idle[-1].process.pid, signal.SIGSTOP)
    monkeypatch.setattr(pool, "time_limit_s", 0.5)
    response = live.client.post("/predict", content=encoded(), headers=PLAIN)
    assert check(response) == "decoding_timeout"
    monkeypatch.setattr(pool, "time_limit_s", 20)
    check_works(live)


def test_what_clients_left_behind_does_not_pile_up_before_the_decoders(monkeypatch):
    """A hundred clients send a picture and leave; one decoder is busy with the first."""
    busy, seen = threading.Event(), []

    class Slow:
        processes = 1

        def decode(self, data, name):
            seen.append(name)
            busy.wait(10)
            raise DecodingError("slow")

        def end(self):
            busy.set()

    async def leave(decoders):
        tasks = [asyncio.create_task(decoders.prepare(b"x", str(n))) for n in range(100)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        waiting = decoders._threads._work_queue.qsize()
        busy.set()
        with pytest.raises(RefusedError):
            await decoders.prepare(b"x", "last")
        return waiting

    settings = ServeSettings(bundle="m", decoders=1)
    decoders = Decoders(settings, Preprocessing(size=32), ServiceMetrics())
    decoders.pool = Slow()
    assert asyncio.run(leave(decoders)) == 0
    assert seen == ["0", "last"]
    decoders.end()
