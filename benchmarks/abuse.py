"""The long campaign against `headstart serve`: what hostile clients send, counted and timed.

    python benchmarks/abuse.py RUN_OR_BUNDLE [--images 10000] [--rounds 20] [--soak 3600]
                               [--pause 0.2] [--schema 50] [--engine auto] [--json FILE]

Starts the command itself (one worker, a free loopback port), sends in turn mutated images, thirty
decompression bombs, odd multipart forms, heads and bodies that trickle, names that lead out of
folders, whatever schemathesis makes of the API's description, and clients that vanish for as long
as `--soak` says (a flood with `--pause 0`), beside good ones. Memory is that of the service and its
processes (resident, /proc). Traffic stays on loopback; nothing is sent anywhere else.

A line is a failure where there was a 5xx, an answer without a code, a hang over one second on an
image, more memory than allowed, or a service that does not answer well afterwards. Times are those
of this machine at that moment: a busy one shows more. `--skip` leaves parts out.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serve"))
from hostile import (
    FORM_TYPE,
    TRAVERSALS,
    bombs,
    file_part,
    form,
    mutations,
    odd_forms,
    seeds,
)

PLAIN = {"content-type": "application/octet-stream"}
MIB = 1 << 20
HANG_S = 1.0
BOMB_S = 0.2
BOMB_BYTES = 256 * MIB


@dataclass
class Tally:
    """What one part of the campaign saw."""

    name: str
    codes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        """One line of the table."""
        times = sorted(self.seconds) or [0.0]
        return {
            "part": self.name,
            "sent": sum(self.codes.values()),
            "codes": dict(self.codes.most_common()),
            "median_s": round(statistics.median(times), 4),
            "p99_s": round(times[min(len(times) - 1, int(0.99 * len(times)))], 4),
            "max_s": round(times[-1], 4),
            "failures": self.failures,
            **{k: round(v, 2) for k, v in self.notes.items()},
        }


class Target:
    """The command under test."""

    def __init__(self, bundle: str, engine: str) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "headstart", "serve", bundle, "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--engine", engine, "--body-timeout", "3"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.announced = self.process.stdout.readline().strip()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.announced)
        assert found is not None, self.announced
        self.port = int(found.group(1))
        self.client = httpx.Client(base_url=found.group(), timeout=60, trust_env=False)
        while self.client.get("/readyz").status_code != 200:
            assert self.process.poll() is None
            time.sleep(0.2)

    def send(self, tally: Tally, content: bytes, content_type: str = PLAIN["content-type"],
             limit_s: float = HANG_S, label: str = "") -> httpx.Response | None:  # fmt: skip
        """One request to /predict, judged."""
        begun = time.perf_counter()
        try:
            response = self.client.post(
                "/predict", content=content, headers={"content-type": content_type}
            )
        except httpx.HTTPError as error:
            tally.failures.append(f"{label}: {type(error).__name__}")
            tally.codes["no answer"] += 1
            return None
        seconds = time.perf_counter() - begun
        tally.seconds.append(seconds)
        code = "200"
        if response.status_code != 200:
            code = response.json().get("error", {}).get("code", "without a code")
        tally.codes[code] += 1
        if response.status_code >= 500 or code == "without a code":
            tally.failures.append(f"{label}: {response.status_code} {code}")
        if seconds > limit_s:
            tally.failures.append(f"{label}: took {seconds:.2f} s ({code})")
        return response

    def raw(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def resident(self) -> int:
        """Bytes in memory of the service and its processes."""
        total, open_ids = 0, [self.process.pid]
        while open_ids:
            pid = open_ids.pop()
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
                for task in Path(f"/proc/{pid}/task").iterdir():
                    open_ids += map(int, (task / "children").read_text().split())
            except OSError:
                continue
        return total

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(60)


class Peak(threading.Thread):
    """Watches memory while something happens."""

    def __init__(self, target: Target) -> None:
        """Watch from now on."""
        super().__init__(daemon=True)
        self.target, self.most, self.over = target, 0, threading.Event()
        self.start()

    def run(self) -> None:
        """Look every few milliseconds."""
        while not self.over.wait(0.005):
            self.most = max(self.most, self.target.resident())


def mutate_images(target: Target, count: int) -> Tally:
    """Mutated pictures of every accepted format."""
    tally = Tally(f"{count:,} mutated images")
    before = target.resident()
    for number, data in enumerate(mutations(count, seed=1)):
        target.send(tally, data, label=f"mutation {number}")
    tally.notes["memory_grown_mib"] = (target.resident() - before) / MIB
    return tally


def explode(target: Target, rounds: int) -> Tally:
    """Decompression bombs, each with the memory it takes."""
    tally = Tally(f"30 bombs x {rounds}")
    grown = 0
    for _ in range(rounds):
        for name, data in bombs():
            before = target.resident()
            watch = Peak(target)
            target.send(tally, data, limit_s=BOMB_S, label=name)
            watch.over.set()
            watch.join()
            grown = max(grown, watch.most - before)
            if watch.most - before > BOMB_BYTES:
                tally.failures.append(f"{name}: {(watch.most - before) / MIB:.0f} MiB more")
    tally.notes["most_memory_more_mib"] = grown / MIB
    return tally


def send_forms(target: Target, rounds: int) -> Tally:
    """Multipart forms that a parser may choke on, and names that lead out of folders."""
    tally = Tally(f"odd forms and file names x {rounds}")
    picture = seeds()[2][1]
    for _ in range(rounds):
        for name, body in odd_forms(picture):
            target.send(tally, body, FORM_TYPE, label=name)
        for name in TRAVERSALS:
            body = form(file_part(picture, name.replace(b'"', b"")))
            response = target.send(tally, body, FORM_TYPE, label=repr(name))
            told = "" if response is None else response.text
            if "/etc" in told or "..\\" in told:
                tally.failures.append(f"{name!r} came back")
    return tally


def trickle(target: Target, count: int) -> Tally:
    """Many heads and bodies that come a byte at a time, at once, while good ones are answered."""
    tally = Tally(f"{count} slow clients")
    picture = seeds()[2][1]
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    slow = [target.raw() for _ in range(count)]
    for number, connection in enumerate(slow):
        if number % 2:
            connection.sendall(head + b"Content-Length: 100000\r\n\r\n")
    begun = time.perf_counter()
    while time.perf_counter() - begun < 14:
        for connection in slow:
            try:
                connection.send(b"x")
            except OSError:
                continue
        target.send(tally, picture, label="good one beside slow ones")
        time.sleep(0.25)
    left = sum(is_open(connection) for connection in slow)
    tally.notes["still_open_after_14_s"] = left
    if left:
        tally.failures.append(f"{left} slow connections are still open")
    return tally


def is_open(connection: socket.socket) -> bool:
    """Whether the other side still waits; closes this one."""
    with connection:
        connection.settimeout(0.2)
        try:
            while connection.recv(4096):
                pass
        except TimeoutError:
            return True
        except OSError:
            pass
        return False


def follow_schema(target: Target, examples: int) -> Tally:
    """What schemathesis makes of the description."""
    tally = Tally(f"schemathesis, {examples} examples an operation and mode")
    import schemathesis
    from test_schema import ask_everything

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{target.port}/openapi.json")
    try:
        tally.codes["calls"] = ask_everything(schema, "no token is asked for", examples)
    except Exception as error:  # a group of failed checks: shown whole
        tally.failures.append(repr(error)[:2000])
    return tally


def soak(target: Target, seconds: float, pause_s: float, threads: int = 6) -> Tally:
    """Clients that vanish at every point of a request, beside good ones.

    Args:
        target: the service.
        seconds: how long.
        pause_s: between two clients of a thread; 0 is a flood beyond what can be answered.
        threads: of clients that vanish.
    """
    tally = Tally(f"{seconds:.0f} s of clients that vanish")
    pictures = [data for _, data in seeds()]
    until, gone, lock = time.monotonic() + seconds, Counter[str](), threading.Lock()

    def vanish(seed: int) -> None:
        generator = np.random.default_rng(seed)
        while time.monotonic() < until:
            body = form(*[file_part(pictures[int(i)]) for i in generator.integers(0, 17, 3)])
            head = (f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM_TYPE}\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n").encode()  # fmt: skip
            whole = head + body
            cut = int(generator.integers(0, len(whole) + 1))
            with target.raw() as connection:
                connection.sendall(whole[: cut if generator.random() < 0.7 else None])
                if generator.random() < 0.3:
                    time.sleep(0.02)
            with lock:
                gone["vanished"] += 1
            time.sleep(pause_s)

    crowd = [threading.Thread(target=vanish, args=(i,), daemon=True) for i in range(threads)]
    for thread in crowd:
        thread.start()
    memory: list[int] = []
    while time.monotonic() < until:
        target.send(tally, pictures[2], limit_s=30, label="good one")
        memory.append(target.resident())
        time.sleep(0.5)
    for thread in crowd:
        thread.join()
    tally.failures = [f for f in tally.failures if "overloaded" not in f]
    quarter = max(1, len(memory) // 4)
    early = statistics.median(memory[quarter : 2 * quarter])
    late = statistics.median(memory[-quarter:])
    tally.notes["vanished"] = gone["vanished"]
    tally.notes["memory_2nd_quarter_mib"] = early / MIB
    tally.notes["memory_4th_quarter_mib"] = late / MIB
    if late > 1.1 * early:
        tally.failures.append("memory grows")
    return tally


def main() -> None:
    """Run the parts in turn and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--slow", type=int, default=100)
    parser.add_argument("--schema", type=int, default=50)
    parser.add_argument("--soak", type=float, default=3600)
    parser.add_argument("--pause", type=float, default=0.2, help="of vanishing clients, seconds")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--json")
    options = parser.parse_args()
    target = Target(options.bundle, options.engine)
    print(target.announced, flush=True)
    parts: dict[str, Callable[[], Tally]] = {
        "images": lambda: mutate_images(target, options.images),
        "bombs": lambda: explode(target, 1),
        "forms": lambda: send_forms(target, options.rounds),
        "slow": lambda: trickle(target, options.slow),
        "schema": lambda: follow_schema(target, options.schema),
        "soak": lambda: soak(target, options.soak, options.pause),
    }
    rows = []
    for name, part in parts.items():
        if name in options.skip:
            continue
        begun = time.perf_counter()
        row = part().row() | {"took_s": round(time.perf_counter() - begun, 1)}
        rows.append(row)
        print(json.dumps(row), flush=True)
    check = Tally("a good image afterwards")
    target.send(check, seeds()[2][1], label="afterwards")
    rows.append(check.row() | {"exit_code": target.end()})
    print(json.dumps(rows[-1]))
    failed = sum(len(row["failures"]) for row in rows)  # type: ignore[arg-type]
    print(f"\n{'part':<48}{'sent':>8}{'median ms':>11}{'p99 ms':>9}{'max ms':>9}{'failures':>10}")
    for row in rows:
        times = "".join(f"{1000 * float(row[k]):>{w}.1f}"  # type: ignore[arg-type]
                        for k, w in (("median_s", 11), ("p99_s", 9), ("max_s", 9)))  # fmt: skip
        print(f"{row['part']:<48}{row['sent']:>8}{times}{len(row['failures']):>10}")  # type: ignore[arg-type]
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
