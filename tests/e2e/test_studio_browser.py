"""The page in a real browser: start it, drop a picture, read the answer, look at every area.

Chromium is driven by chromedriver, which speaks plain HTTP (the WebDriver protocol).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from headstart.cli import main

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)  # fmt: skip
DRIVER = shutil.which("chromedriver")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1100,900",
)  # fmt: skip
PATIENCE_S = 180

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with its chromedriver here"),
]
pytest.importorskip("streamlit", reason="the page needs streamlit")


class Browser:
    """A headless Chromium."""

    def __init__(self, profile):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.session = f"http://127.0.0.1:{port}"
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        until(lambda: self.answers("/status"))
        options = {"binary": BROWSER, "args": [*SWITCHES, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        found = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session += f"/session/{found['sessionId']}"

    def answers(self, path):
        try:
            return self.call("GET", path) is not None
        except (urllib.error.URLError, OSError):
            return False

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            self.session + path, method=method, headers={"Content-Type": "application/json"},
            data=None if body is None else json.dumps(body).encode(),
        )  # fmt: skip
        with self.open(request, timeout=PATIENCE_S) as reply:
            return json.load(reply)["value"]

    def go(self, address):
        self.call("POST", "/url", {"url": address})

    def run(self, script):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def element(self, css):
        found = until(lambda: self.call("POST", "/elements", {"using": "css selector",
                                                              "value": css}))  # fmt: skip
        return f"/element/{next(iter(found[0].values()))}"

    def text_with(self, *words):
        """The page's text once it holds all these words."""

        def text():
            return self.run("return document.body.innerText")

        until(lambda: all(word in text() for word in words), text)
        return text()

    def addresses(self):
        """Every address that the page asked for."""
        events = self.call("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(event["message"])["message"] for event in events]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }

    def close(self):
        self.call("DELETE", "")
        self.process.terminate()
        self.process.wait(20)


def until(check, context=lambda: ""):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited in vain; {context()}")


@pytest.fixture
def browser(tmp_path):
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


@pytest.fixture
def address(tmp_path, colour_folder, monkeypatch, capsys):
    """The page on a real run, served by the command in a process of its own."""
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, capsys, "run", "--data", colour_folder, "--folds", 2,
                   "--image-size", 32, "--out", "runs/colours", "--json")  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "headstart", "studio", "runs", "--port", "0"],
        stdout=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    yield server.stdout.readline().split()[1]
    server.terminate()
    server.communicate(timeout=60)


def command(monkeypatch, capsys, *words):
    """What a command prints as JSON."""
    monkeypatch.setattr(sys, "argv", ["headstart", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    return json.loads(capsys.readouterr().out)


def test_a_dropped_picture_gets_the_command_s_answer(
    browser, address, colour_folder, tmp_path, monkeypatch, capsys
):
    picture = colour_folder / "green" / "07.png"
    (tmp_path / "bad.jpg").write_text("no picture")
    browser.go(address)
    drop = browser.element("input[type=file]")
    browser.call("POST", f"{drop}/value", {"text": f"{picture}\n{tmp_path / 'bad.jpg'}"})
    text = browser.text_with("as the network sees it", "bad.jpg: not an image")
    (expected,) = command(monkeypatch, capsys, "predict", "runs/colours", picture, "--json")
    shown = browser.run("return document.querySelector('.big-class').innerText")
    assert shown.split()[0] == expected["class"]
    assert f"{100 * expected['confidence']:.1f}\u00a0%" in shown
    assert "1 file could not be read" in text
    size = "const i = document.querySelector('.whole'); return i.complete && i.naturalWidth > 0"
    assert until(lambda: browser.run(size))

    for area, words in (
        ("runs", ("Against simple rivals", "Confusion matrix", "The whole report")),
        ("data", ("What the audit found", "Labels", "Page 1 of 2")),
    ):
        browser.go(f"{address}/?area={area}")
        browser.text_with(*words)
    broken = "return [...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert browser.run("return document.images.length") >= 24
    assert browser.run(broken) == 0
    asked = {url for url in browser.addresses() if url.startswith(("http", "ws"))}
    assert asked
    assert all(url.startswith((address, address.replace("http", "ws"))) for url in asked), asked
