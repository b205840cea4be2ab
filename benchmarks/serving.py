"""How fast the service is, against a bare loop over the same engine on the same images.

    python benchmarks/serving.py RUN_OR_BUNDLE IMAGES [--seconds 8] [--files 1 8] [--rounds 3]
                                 [--engine auto]

Everything on one machine, loopback, one worker, images from a folder, decoding included. In each
round, in turn, so that a busy machine hits all alike:

    bare      a loop without HTTP: threads decode and resize, one thread runs the engine on batches
              of 32 as they fill (what somebody would write who needs images/s and no service)
    unloaded  one request at a time: p50
    closed    as many clients as keep the service busy: images/s, its share of the bare loop
    half      open loop at half of that rate: requests leave at set times whether or not earlier
              ones are answered, and a wait counts from the set time; p99 against the batch window
              plus twice the unloaded p50, and errors
    double    open loop at twice that rate: how quickly the surplus gets its 503, and the p99 of
              what was accepted against twice that at half load

Processor time an image is counted too, that of the service with its decoders: it says more than
rates where a machine is busy. The aims are printed beside. The load comes from one process of its
own with bare sockets (a client library would cost more than the service); it shares the cores with
the service, and a machine that does other work makes every figure smaller: run it on a quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

BATCH = 32
MOST_IMAGES = 200
LATE_S = 0.1


@dataclass
class Load:
    """What one phase of load saw.

    Attributes:
        waits: seconds from the set time to the end of the answer, of those answered.
        refused: seconds until the 503, of those refused.
        statuses: how many of each.
        took_s: of the phase.
    """

    waits: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    took_s: float = 0.0


def percentile(values: list[float], share: float) -> float:
    """The nearest value of a share; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Client:
    """One kept connection that speaks just enough HTTP."""

    def __init__(self, port: int) -> None:
        """Connect when first needed."""
        self.port = port
        self.socket: socket.socket | None = None

    def post(self, request: bytes) -> int:
        """Send a whole request; the status of its answer."""
        for fresh in (False, True):
            try:
                if self.socket is None or fresh:
                    self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
                    self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.socket.sendall(request)
                return self._read()
            except (ConnectionError, IndexError):
                if fresh:
                    raise
        raise AssertionError

    def _read(self) -> int:
        assert self.socket is not None
        content = b""
        while b"\r\n\r\n" not in content:
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError
            content += piece
        head, _, body = content.partition(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        left = int(found.group(1)) - len(body) if found else 0
        while left > 0:
            left -= len(self.socket.recv(65536))
        if b"connection: close" in head.lower():
            self.socket.close()
            self.socket = None
        return int(head.split()[1])


def request_of(images: list[bytes]) -> bytes:
    """A whole POST with these images as a form."""
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="%d.jpg"\r\n\r\n%b\r\n'
        % (i, data)
        for i, data in enumerate(images)
    )
    body = parts + b"--b--\r\n"
    return (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
        b"boundary=b\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def run_closed(port: int, requests: list[bytes], clients: int, seconds: float) -> Load:
    """Each client sends its next request when the last was answered."""
    load, lock, until = Load(), threading.Lock(), time.perf_counter() + seconds

    def ask(number: int) -> None:
        client, at = Client(port), number
        while (begun := time.perf_counter()) < until:
            status = client.post(requests[at % len(requests)])
            waited = time.perf_counter() - begun
            at += clients
            with lock:
                load.statuses[status] += 1
                load.waits.append(waited)

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(clients)))
    load.took_s = time.perf_counter() - begun
    return load


def run_open(port: int, requests: list[bytes], rate: float, seconds: float) -> Load:
    """Requests leave at set times, at random gaps of a mean 1 / rate (Poisson)."""
    generator = np.random.default_rng(0)
    times = np.cumsum(generator.exponential(1 / rate, max(1, int(rate * seconds))))
    load, lock = Load(), threading.Lock()
    free: list[Client] = []
    begun = time.perf_counter() + 0.1

    def ask(number: int) -> None:
        with lock:
            client = free.pop() if free else Client(port)
        left = time.perf_counter()
        status = client.post(requests[number % len(requests)])
        now = time.perf_counter()
        with lock:
            free.append(client)
            load.statuses[status] += 1
            if status == 200:
                load.waits.append(now - begun - times[number])
            else:
                load.refused.append(now - left)

    with ThreadPoolExecutor(256) as pool:
        for number, at in enumerate(times):
            wait = begun + at - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            pool.submit(ask, number)
    load.took_s = time.perf_counter() - begun
    return load


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and all its children so far."""
    total, open_ids = 0.0, [pid]
    while open_ids:
        at = open_ids.pop()
        try:
            fields = Path(f"/proc/{at}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            for task in Path(f"/proc/{at}/task").iterdir():
                open_ids += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return total


def run_bare(bundle: str, engine: str, images: list[bytes], seconds: float) -> tuple[float, float]:
    """Images/s and processor seconds an image of a loop without a service."""
    from headstart.bundle import load_classifier
    from headstart.bundle.format import read_preprocessing
    from headstart.data import decode
    from headstart.inference import resize_pixels
    from headstart.runtime import usable_cores

    classifier = load_classifier(bundle, engine=engine)
    preprocessing = read_preprocessing(classifier.about)

    def prepare(data: bytes) -> np.ndarray:
        return resize_pixels(decode(data, "a.jpg")[0], preprocessing)

    def take(start: int) -> list[bytes]:
        return [images[(start + i) % len(images)] for i in range(BATCH)]

    done, begun, spent = 0, 0.0, 0.0
    with ThreadPoolExecutor(usable_cores()) as pool:
        ahead = [[pool.submit(prepare, d) for d in take(BATCH * n)] for n in range(2)]
        number = 2
        while True:
            batch = np.stack([future.result() for future in ahead.pop(0)])
            ahead.append([pool.submit(prepare, d) for d in take(BATCH * number)])
            number += 1
            classifier.answer_pixels(batch)
            if not begun:  # the first batch warms up
                begun, spent = time.perf_counter(), time.process_time()
                continue
            done += BATCH
            if time.perf_counter() - begun > seconds:
                took, used = time.perf_counter() - begun, time.process_time() - spent
                return done / took, used / done


class Service:
    """`headstart serve` in a process of its own."""

    def __init__(self, bundle: str, engine: str) -> None:
        """Start it and wait until it is ready."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headstart", "serve", bundle, "--port", "0", "--engine", engine],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.announced = self.process.stdout.readline().strip()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.announced)
        assert found is not None, self.announced
        self.port = int(found.group(1))
        ready = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        while Client(self.port).post(ready) != 200:
            time.sleep(0.2)

    def engine(self) -> str:
        """What it answers with."""
        found = re.search(r" by (\S+)", self.announced)
        return found.group(1) if found else "torch"

    def end(self) -> None:
        """SIGTERM."""
        self.process.terminate()
        self.process.wait(60)


def one_round(
    service: Service, bundle: str, images: list[bytes], files: int, seconds: float
) -> dict[str, float]:
    """Every phase once."""
    groups = [
        [images[(files * i + j) % len(images)] for j in range(files)]
        for i in range(max(1, len(images) // files))
    ]
    requests = [request_of(group) for group in groups]
    command = [sys.executable, __file__, bundle, "-", "--engine", service.engine(), "--bare",
               str(seconds)]  # fmt: skip
    packed = json.dumps([data.hex() for data in images])
    output = subprocess.run(command, input=packed, capture_output=True, text=True,
                                check=True).stdout  # fmt: skip
    bare, bare_cpu = map(float, output.split())
    unloaded = run_closed(service.port, requests, 1, seconds / 2)
    used = cpu_seconds(service.process.pid)
    closed = run_closed(service.port, requests, max(2, 32 // files), seconds)
    used = cpu_seconds(service.process.pid) - used
    rate = closed.statuses[200] / closed.took_s
    half = run_open(service.port, requests, rate / 2, seconds)
    double = run_open(service.port, requests, rate * 2, seconds)
    p50 = percentile(unloaded.waits, 0.5)
    return {
        "bare images/s": bare,
        "service images/s": rate * files,
        "share of bare": rate * files / bare,
        "bare CPU ms an image": 1000 * bare_cpu,
        "service CPU ms an image": 1000 * used / (closed.statuses[200] * files),
        "unloaded p50 ms": 1000 * p50,
        "half p50 ms": 1000 * percentile(half.waits, 0.5),
        "half p99 ms": 1000 * percentile(half.waits, 0.99),
        "half p99 / (window + 2 p50)": percentile(half.waits, 0.99) / (0.005 + 2 * p50),
        "half errors": float(sum(half.statuses.values()) - half.statuses[200]),
        "double accepted p99 ms": 1000 * percentile(double.waits, 0.99),
        "double accepted p99 / half p99":
            percentile(double.waits, 0.99) / percentile(half.waits, 0.99),
        "double 503 share": double.statuses[503] / sum(double.statuses.values()),
        "double 503 p99 ms": 1000 * percentile(double.refused, 0.99),
        "double other": float(
            sum(n for s, n in double.statuses.items() if s not in (200, 503))
        ),
    }  # fmt: skip


AIMS = {
    "share of bare": "at least 0.9",
    "half p99 / (window + 2 p50)": "at most 1",
    "half errors": "0",
    "double accepted p99 / half p99": "at most 2",
    "double 503 p99 ms": "at most 100",
    "double other": "0",
}


def main() -> None:
    """Rounds, then a table of medians with least and most."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("images", help="folder of pictures; up to 200 are taken")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--files", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--bare", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        given = [bytes.fromhex(text) for text in json.loads(sys.stdin.read())]
        print(*run_bare(options.bundle, options.engine, given, options.bare))
        return
    found = sorted(
        p for p in Path(options.images).rglob("*") if p.suffix.lower() in (".jpg", ".png")
    )
    step = max(1, len(found) // MOST_IMAGES)
    images = [path.read_bytes() for path in found[::step][:MOST_IMAGES]]
    service = Service(options.bundle, options.engine)
    print(service.announced)
    size = statistics.mean(map(len, images)) / 1024
    print(f"{len(images)} images of {size:.0f} KiB on average")
    try:
        for files in options.files:
            rows = []
            for _ in range(options.rounds):
                row = one_round(service, options.bundle, images, files, options.seconds)
                rows.append(row)
                print(json.dumps({k: round(v, 3) for k, v in row.items()}), flush=True)
            print(f"\n{files} image(s) a request, n = {len(rows)}: median [least, most]")
            for name in rows[0]:
                values = [row[name] for row in rows]
                text = f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
                print(f"  {name:<34}{text:<30}{AIMS.get(name, '')}")
    finally:
        service.end()


if __name__ == "__main__":
    main()
