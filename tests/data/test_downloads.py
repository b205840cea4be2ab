"""Checked downloads from a server on this machine: whole, damaged, absent, forbidden."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading

import numpy as np
import pytest

from headstart.data import load_table
from headstart.data.packed import downloads
from headstart.data.packed.cifar import read_archive
from headstart.errors import DataError


def idx(values):
    head = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(head + values.tobytes(), mtime=0)


IDX_FILES = {
    "train-images-idx3-ubyte.gz": idx(np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2)),
    "train-labels-idx1-ubyte.gz": idx(np.arange(10, dtype=np.uint8)),
    "t10k-images-idx3-ubyte.gz": idx(np.zeros((2, 2, 2), np.uint8)),
    "t10k-labels-idx1-ubyte.gz": idx(np.array([3, 9], np.uint8)),
}


def cifar_archive(batch_of=None):
    """An archive as published, with two images a batch."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
            planes = np.zeros((2, 3, 32, 32), np.uint8)
            planes[:, 0], planes[1, 2, 0, 1] = number, 200
            batch = {"data": planes.reshape(2, -1), "labels": [number, 9]}
            content = pickle.dumps(batch_of or batch, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def server():
    """A server on this machine: its address, and what it serves and was asked for."""
    served: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = served.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            return None

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", served, asked
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def mnist(server, monkeypatch, tmp_path):
    """torchvision's addresses and sums of MNIST, pointed to the server; an empty data folder."""
    from torchvision.datasets import MNIST

    address, served, _ = server
    for name in downloads.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in IDX_FILES.items()]
    monkeypatch.setattr(MNIST, "mirrors", [f"{address}/one/", f"{address}/two/"])
    monkeypatch.setattr(MNIST, "resources", sums)
    served.update({f"/two/{name}": content for name, content in IDX_FILES.items()})
    return tmp_path / "mnist"


def refusal_of(name):
    with pytest.raises(DataError) as caught:
        load_table(name)
    return str(caught.value)


def test_missing_files_come_from_the_first_mirror_that_has_them(mnist, server):
    table = load_table("mnist")
    assert table.labels.tolist() == [*range(10), 3, 9]
    assert {file.name: file.read_bytes() for file in mnist.iterdir()} == IDX_FILES
    asked = list(server[2])
    assert len(asked) == 8
    assert asked[:2] == ["/one/train-images-idx3-ubyte.gz", "/two/train-images-idx3-ubyte.gz"]
    load_table("mnist")
    assert server[2] == asked


def test_who_only_looks_downloads_nothing(mnist, server):
    with downloads.at_hand_only():
        assert "what only looks at them downloads nothing" in refusal_of("mnist")
    assert not server[2]
    assert not mnist.exists()
    assert len(load_table("mnist")) == 12


def test_only_what_is_missing_is_asked_for(mnist, server):
    mnist.mkdir()
    for name in list(IDX_FILES)[:3]:
        (mnist / name.removesuffix(".gz")).write_bytes(gzip.decompress(IDX_FILES[name]))
    assert len(load_table("mnist")) == 12
    assert server[2] == ["/one/t10k-labels-idx1-ubyte.gz", "/two/t10k-labels-idx1-ubyte.gz"]


def test_a_damaged_mirror_is_passed_over(mnist, server):
    name = "train-labels-idx1-ubyte.gz"
    server[1][f"/one/{name}"] = IDX_FILES[name][:-1]
    assert len(load_table("mnist")) == 12
    assert (mnist / name).read_bytes() == IDX_FILES[name]


def test_a_damaged_file_is_never_kept(mnist, server):
    name = "train-labels-idx1-ubyte.gz"
    server[1][f"/two/{name}"] = bytes(reversed(IDX_FILES[name]))
    message = refusal_of("mnist")
    assert "gave is damaged: its MD5 is not" in message
    assert f"must be in '{mnist}'" in message
    assert sorted(file.name for file in mnist.iterdir()) == ["train-images-idx3-ubyte.gz"]


def test_no_server_is_one_sentence(mnist, server, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    message = refusal_of("mnist")
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz cannot be reached" in message
    assert "Put the files there" in message
    assert not mnist.exists()


def test_a_silent_server_does_not_hold_the_run(mnist, monkeypatch):
    import socket

    from torchvision.datasets import MNIST

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        monkeypatch.setattr(downloads, "TIMEOUT_S", 0.2)
        assert "cannot be reached (timed out)" in refusal_of("mnist")


@pytest.mark.parametrize("variable", downloads.OFFLINE_VARIABLES)
def test_downloads_can_be_forbidden(mnist, server, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert f"{variable} forbids to download them" in refusal_of("mnist")
    assert server[2] == []


def test_without_a_data_folder_the_cache_keeps_them(mnist, monkeypatch, own_cache):
    monkeypatch.delenv("HEADSTART_DATA")
    assert len(load_table("mnist")) == 12
    assert (own_cache / "data" / "mnist" / "train-images-idx3-ubyte.gz").is_file()


def test_cifar10_as_published(mnist, server, monkeypatch):
    from torchvision.datasets import CIFAR10

    address, served, _ = server
    archive = cifar_archive()
    served["/cifar-10-python.tar.gz"] = archive
    monkeypatch.setattr(CIFAR10, "url", f"{address}/cifar-10-python.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive).hexdigest())
    table = load_table("cifar10")
    assert table.splits == ("train",) * 10 + ("test",) * 2
    assert table.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert (table.class_names[0], table.class_names[9]) == ("airplane", "truck")
    assert table.read(11)[0, 1].tolist() == [5, 0, 200]
    assert table.read(10)[0, 1].tolist() == [5, 0, 0]


class Harmful:
    def __reduce__(self):
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("batch", "clause"),
    [
        (Harmful(), "which is no array"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "labels and images do not fit"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, "labels and images do not fit"),
        ({"data": np.zeros((1, 9), np.uint8), "labels": [0]}, "cannot reshape"),
        ({"labels": [0]}, "'data'"),
    ],
)
def test_a_forged_archive_runs_nothing(tmp_path, capsys, batch, clause):
    file = tmp_path / "cifar-10-python.tar.gz"
    file.write_bytes(cifar_archive(batch))
    with pytest.raises(DataError, match="is damaged: ") as caught:
        read_archive(file)
    assert clause in str(caught.value)
    assert capsys.readouterr().out == ""
