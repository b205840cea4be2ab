"""Downloads from a hub on this machine: found, kept, damaged, cut short, silent, missing."""

from __future__ import annotations

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save

from headstart.backbones import build_network, find_backbone, hubs
from headstart.backbones.survey import survey_backbones
from headstart.errors import WeightsError

HUB_ID = "timm/resnet10t.c3_in1k"


class Hub(ThreadingHTTPServer):
    """Serves files by path; a shortened one states more bytes than it sends."""

    daemon_threads = True

    def __init__(self):
        self.files, self.asked, self.missing_bytes, self.delay_s = {}, [], 0, 0.0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        hub = self.server
        hub.asked.append((self.command, self.path))
        time.sleep(hub.delay_s)
        body = hub.files.get(self.path)
        if body is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        stated, content = body
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + hub.missing_bytes))
        self.send_header("ETag", f'"{stated}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("X-Linked-Size", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.socket.close()
    thread.join()


@pytest.fixture(scope="module")
def resnet_bytes():
    import timm

    torch.manual_seed(5)
    return save(timm.create_model("resnet10t").state_dict())


def publish(hub, content, *, stated=None):
    digest = stated or hashlib.sha256(content).hexdigest()
    hub.files[f"/{HUB_ID}/resolve/main/model.safetensors"] = (digest, content)


def test_the_hub_is_asked_once(hub, resnet_bytes):
    publish(hub, resnet_bytes)
    spec = find_backbone("timm:resnet10t")
    assert survey_backbones("resnet10t")[0]["weights"] == "from the hub"
    network = build_network(spec)
    assert network.weights.source == "hub"
    assert network.weights.origin == HUB_ID
    assert network.weights.licence == "apache-2.0"
    assert network.weights.file_digest == hashlib.sha256(resnet_bytes).hexdigest()
    count = len(hub.asked)
    assert count
    hub.files.clear()
    assert build_network(spec).digest == network.digest
    assert len(hub.asked) == count
    entry = survey_backbones("resnet10t")[0]
    assert (entry["weights"], entry["at_hand"]) == ("in the hub's cache", True)


def test_what_the_hub_damaged_is_named(hub, resnet_bytes):
    publish(hub, resnet_bytes, stated="0" * 64)
    with pytest.raises(WeightsError, match=r"damaged: its SHA-256 is .*states 0000.*Delete"):
        build_network(find_backbone("timm:resnet10t"))


def test_a_hub_without_the_file(hub):
    with pytest.raises(WeightsError, match=r"the hub has no such file.*HEADSTART_WEIGHTS"):
        build_network(find_backbone("timm:resnet10t"))


def test_a_closed_hub_is_given_up_at_once(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    begun = time.monotonic()
    with pytest.raises(WeightsError, match=r"the hub cannot be reached.*--model mini"):
        hubs.fetch_weights(HUB_ID, "resnet10t")
    assert time.monotonic() - begun < 3


def test_a_silent_hub_is_given_up_soon(hub, monkeypatch):
    monkeypatch.setattr(hubs, "TIMEOUT_S", 1)
    hub.delay_s = 8.0
    begun = time.monotonic()
    with pytest.raises(WeightsError, match=r"the hub cannot be reached"):
        hubs.fetch_weights(HUB_ID, "resnet10t")
    assert time.monotonic() - begun < 5


def test_a_name_that_is_looked_up_for_long_is_given_up_soon(hub, monkeypatch):
    monkeypatch.setattr(hubs, "TIMEOUT_S", 1)
    monkeypatch.setattr(hubs, "ask", lambda address: time.sleep(6) or True)
    begun = time.monotonic()
    with pytest.raises(WeightsError, match=r"cannot be reached"):
        hubs.fetch_weights(HUB_ID, "resnet10t")
    assert time.monotonic() - begun < 5


def test_a_network_nobody_published():
    with pytest.raises(WeightsError, match=r"No pretrained weights of x are published.*FILE"):
        hubs.fetch_weights("", "x")


def torch_file(hub, content, *, stated=None):
    """The address of a file whose name states its digest as torchvision's do."""
    name = f"/models/net-{(stated or hashlib.sha256(content).hexdigest())[:8]}.pth"
    hub.files[name] = ("", content)
    return hub.address + name


def test_an_address_is_fetched_once_into_torchs_cache(hub, tmp_path):
    address = torch_file(hub, b"weights" * 1000)
    path = hubs.fetch_weights(address, "net")
    assert path.parent == tmp_path / "torch" / "hub" / "checkpoints"
    assert path.read_bytes() == b"weights" * 1000
    count = len(hub.asked)
    assert hubs.fetch_weights(address, "net") == path
    assert len(hub.asked) == count


def test_a_damaged_download_is_named_and_not_kept(hub):
    address = torch_file(hub, b"weights", stated="deadbeef")
    with pytest.raises(WeightsError, match=r"net-deadbeef.pth' is damaged.*states deadbeef"):
        hubs.fetch_weights(address, "net")
    assert hubs.cached_file(address) is None
    assert list(hubs.torch_cache().iterdir()) == []


def test_a_download_cut_short_is_named_and_not_kept(hub):
    address = torch_file(hub, b"weights")
    hub.missing_bytes = 5
    with pytest.raises(WeightsError, match=r"download (ended after 7 of 12|failed)"):
        hubs.fetch_weights(address, "net")
    assert hubs.cached_file(address) is None


def test_a_damaged_file_in_the_cache_says_what_to_delete(hub):
    address = torch_file(hub, b"weights")
    path = hubs.fetch_weights(address, "net")
    path.write_bytes(b"weight!")
    with pytest.raises(WeightsError, match=r"Delete '.*net-"):
        hubs.fetch_weights(address, "net")


def test_no_address_and_no_file(hub):
    with pytest.raises(WeightsError, match=r"127.0.0.1:9 cannot be reached.*'net.pth' into"):
        hubs.fetch_weights("http://127.0.0.1:9/models/net-00000000.pth", "net")
    with pytest.raises(WeightsError, match=r"HTTP Error 404"):
        hubs.fetch_weights(f"{hub.address}/models/net-00000000.pth", "net")


def test_torchvisions_network_comes_from_its_address(hub, monkeypatch):
    """The real entry with its host replaced: 26 MB of fresh weights, auxiliary heads and all."""
    import io

    from torchvision.models import GoogLeNet_Weights, googlenet

    torch.manual_seed(0)
    whole = googlenet(weights=None, aux_logits=True, transform_input=True, init_weights=False)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    address = torch_file(hub, file.getvalue())
    monkeypatch.setattr(GoogLeNet_Weights.DEFAULT.__class__, "url", address)
    network = build_network(find_backbone("GoogLeNet"), image_size=64)
    assert network.weights.origin == address
    assert network.weights.file_digest == hashlib.sha256(file.getvalue()).hexdigest()
    whole.eval().fc = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.module(x), whole(x))
