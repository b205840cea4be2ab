"""`headstart studio` itself: what it refuses, how it starts, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from report.stored_runs import make_run
from test_architecture import loaded_after

from headstart.cli import main
from headstart.errors import UsageError
from headstart.studio import launching
from headstart.studio.places import check_place, find_entries, newest


@pytest.fixture
def studio(monkeypatch, capsys, tmp_path):
    """Type the command where it must refuse; gives exit code and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADSTART_DEBUG", raising=False)

    def type_command(*words):
        monkeypatch.setattr(sys, "argv", ["headstart", "studio", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, capsys.readouterr().err

    return type_command


def one_sentence(err):
    assert err.startswith("headstart: ")
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_without_streamlit_the_install_command_is_named(studio, monkeypatch):
    monkeypatch.setattr(launching, "find_spec", lambda _: None)
    code, err = studio()
    assert code == 2
    one_sentence(err)
    assert "pip install 'headstart[studio]'" in err


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("nothing", "does not exist"),
        ("empty", "holds no run and no bundle"),
        ("file", "is a file"),
    ],
)
def test_a_bad_folder_is_one_sentence(studio, tmp_path, made, told):
    if made == "empty":
        (tmp_path / "empty").mkdir()
    elif made == "file":
        (tmp_path / "file").touch()
    code, err = studio(made)
    assert code == 2
    one_sentence(err)
    assert told in err


def test_a_port_in_use_is_one_sentence(studio, tmp_path):
    make_run(tmp_path / "runs" / "pets")
    with socket.socket() as taken:
        taken.bind((launching.ADDRESS, 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, err = studio("runs", "--port", port)
    assert code == 2
    one_sentence(err)
    assert f"The port {port} is in use" in err


def test_help_loads_nothing_heavy():
    heavy = {"streamlit", "torch", "numpy", "jinja2", "matplotlib", "pandas"}
    modules = loaded_after(
        "import headstart.cli.studio, headstart.studio.launching, headstart.studio.places"
    )
    assert not heavy & modules


def test_runs_are_found_wherever_they_lie(tmp_path):
    place = tmp_path / "runs"
    for name in ("b", "a", "deep/er/c", ".hidden/d", "much/too/deep/down/e"):
        make_run(place / name)
    (place / "a" / "model").mkdir()
    (place / "a" / "model" / "bundle.json").touch()
    (place / "a" / "model" / "manifest.json").touch()
    (place / "shipped").mkdir()
    (place / "shipped" / "bundle.json").touch()
    (place / "compared" / "one").mkdir(parents=True)
    (place / "compared" / "comparison.json").touch()
    (place / "compared" / "one" / "run.json").touch()
    found = {entry.name: entry.kind for entry in find_entries(place)}
    assert found == {"a": "run", "b": "run", "deep/er/c": "run", "shipped": "bundle",
                     "compared": "comparison", "compared/one": "run"}  # fmt: skip
    assert newest(find_entries(place)) == "a"
    assert [entry.name for entry in check_place(place / "a")] == ["a"]
    (place / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no run"):
        check_place(place / "empty")


def test_options_keep_the_page_on_this_computer(tmp_path):
    command = launching.server_command(tmp_path, 8765)
    for option in (
        "--server.address=127.0.0.1", "--server.port=8765", "--server.headless=true",
        "--browser.gatherUsageStats=false", "--client.showErrorDetails=none",
        "--server.allowedHosts=127.0.0.1", "--server.maxUploadSize=25",
    ):  # fmt: skip
        assert option in command
    assert command[-2:] == ["--", str(tmp_path)]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl-c"),
        pytest.param(signal.SIGTERM, id="terminate", marks=pytest.mark.slow),
    ],
)
def test_it_serves_here_only_and_ends_cleanly(tmp_path, number):
    pytest.importorskip("streamlit", reason="the page needs streamlit")
    make_run(tmp_path / "runs" / "pets")
    process = subprocess.Popen(
        [sys.executable, "-m", "headstart", "studio", "runs", "--port", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    try:
        first = process.stdout.readline()
        assert first.startswith("Studio     http://127.0.0.1:"), process.stderr.read()
        address = first.split()[1]
        with urllib.request.urlopen(address, timeout=20) as reply:
            assert reply.status == 200
        os.killpg(process.pid, number)  # as a terminal does
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    assert "Studio ended." in out
    assert "Traceback" not in out + err
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5)
    assert not (tmp_path / ".streamlit").exists()  # nothing is written into the user's home
