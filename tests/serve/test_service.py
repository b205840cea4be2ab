"""The service answers as the bundle does, and says no in the right way."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time

import httpx
import numpy as np
import pytest
from live import CLASSES, encoded, rewrite, running, settings_for, write_bundle

from headstart.bundle import load_classifier
from headstart.data import DecodingError
from headstart.data.guarded.pool import NO_DECODER
from headstart.data.guarded.squares import DecodingLimits
from headstart.errors import UsageError
from headstart.serve import ServeSettings, decoders
from headstart.serve.answers import ErrorAnswer, ModelAnswer, PredictAnswer, Prediction
from headstart.serve.failures import FAILURES
from headstart.serve.logs import LOGGER, JsonFormatter

TOKEN = "a-token-of-some-length"


def files(*contents, field="files"):
    return [(field, (f"{i}.png", data, "image/png")) for i, data in enumerate(contents)]


def code_of(response):
    body = ErrorAnswer.model_validate_json(response.content)
    assert FAILURES[body.error.code].status == response.status_code
    return body.error.code


def about(score):
    """A distance is a product of matrices in float64, whose last bit depends on the batch."""
    return pytest.approx(score, rel=1e-12)


def test_answers_are_those_of_the_bundle_to_the_last_bit(live, served_bundle):
    pictures = [encoded(i, format) for i, format in enumerate(("PNG", "JPEG", "WEBP", "BMP"))]
    expected = load_classifier(served_bundle, precision="float32").predict(pictures)
    together = live.client.post("/predict", files=files(*pictures))
    assert together.status_code == 200
    PredictAnswer.model_validate_json(together.content)
    alone = [
        live.client.post("/predict", content=data, headers={"content-type": "image/png"}).json()
        for data in pictures
    ]
    for i, found in enumerate(together.json()["predictions"]):
        assert found["index"] == i
        assert found["name"] == f"{i}.png"
        assert tuple(found["probabilities"]) == CLASSES
        values = np.array(list(found["probabilities"].values()), dtype=np.float32)
        assert np.array_equal(values, expected.probabilities[i])
        assert found["class"] == expected.names[i]
        assert found["confidence"] == float(expected.probabilities[i].max())
        held = [c for c, h in zip(CLASSES, expected.sets[i], strict=True) if h]
        assert found["set"] == held
        assert found["unknown"] == bool(expected.unknown[i])
        assert found["positive"] == CLASSES[1]
        assert found["called_positive"] == bool(expected.called[i])
        assert found["outlier_score"] == about(expected.outlier_scores[i])
        single = alone[i]["predictions"][0]
        single["outlier_score"] = about(single["outlier_score"])
        assert {**found, "index": 0, "name": ""} == single
    assert together.json()["model_digest"] == load_classifier(served_bundle).root_digest


def test_many_at_once_answer_as_one(live):
    picture = encoded(9)
    expected = live.client.post("/predict", files=files(picture)).json()
    score = expected["predictions"][0]["outlier_score"]
    expected["predictions"][0]["outlier_score"] = about(score)
    answers = []

    def ask():
        answers.append(httpx.post(f"{live.url}/predict", files=files(picture)).json())

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 12


def test_one_bad_image_among_good_ones(live):
    response = live.client.post("/predict", files=files(encoded(1), b"nonsense"))
    first, second = response.json()["predictions"]
    assert response.status_code == 200
    Prediction.model_validate(first)
    assert second["error"]["code"] == "unsupported_format"


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        (lambda: {"content": b"x", "headers": {"content-type": "text/plain"}}, "unsupported_body"),
        (lambda: {"content": b"", "headers": {"content-type": "image/png"}}, "no_files"),
        (lambda: {"json": {"url": "http://127.0.0.1/a.png"}}, "unsupported_body"),
        (lambda: {"data": {"url": "x"}, "files": files(encoded())}, "bad_form"),
        (lambda: {"files": files(encoded()[:-200])}, "undecodable_image"),
        (lambda: {"files": files(b"%PDF-1.7 something")}, "unsupported_format"),
        (lambda: {"files": files(*[encoded()] * 5)}, "too_many_files"),
        (lambda: {"files": files(b"\x00" * 60_001)}, "file_too_large"),
        (lambda: {"content": b"\x00" * 150_001,
                  "headers": {"content-type": "image/png"}}, "body_too_large"),
        (lambda: {"content": b"x", "headers": {"content-type": "image/png",
                                               "content-encoding": "gzip"}}, "unsupported_body"),
    ],
)  # fmt: skip
def test_what_is_refused_has_a_code(live, request_of, code):
    response = live.client.post("/predict", **request_of())
    assert code_of(response) == code
    assert "x-request-id" in response.headers


def test_other_paths_methods_and_names(live):
    assert code_of(live.client.get("/nothing")) == "not_found"
    put = live.client.put("/predict", content=b"")
    assert code_of(put) == "method_not_allowed"
    assert put.headers["allow"] == "POST"
    foreign = live.client.get("/model", headers={"host": "evil.example"})
    assert code_of(foreign) == "host_not_allowed"
    cors = live.client.options("/predict", headers={"origin": "http://evil.example"})
    assert not [name for name in cors.headers if name.startswith("access-control")]


def test_the_model_and_the_pages(live, served_bundle):
    model = live.client.get("/model")
    about = ModelAnswer.model_validate_json(model.content)
    assert about.class_names == list(CLASSES)
    assert about.golden == "stored in the bundle"
    assert about.limits["max_files"] == 4
    docs = live.client.get("/docs").text
    assert "<script" not in docs
    assert "http://" not in docs.replace("http://127.0.0.1:8000", "")
    assert "https://" not in docs
    for code in FAILURES:
        assert f"<code>{code}</code>" in docs
    described = live.client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/healthz", "/readyz", "/metrics", "/model"}
    assert "422" in described["paths"]["/predict"]["post"]["responses"]


def test_a_page_of_another_site_may_not_use_it(live):
    for origin in ("http://evil.example", "https://evil.example:8443", "null"):
        sent = live.client.post("/predict", files=files(encoded()), headers={"origin": origin})
        assert code_of(sent) == "origin_not_allowed"
    for origin in ("http://localhost:3000", f"http://127.0.0.1:{live.port}", "http://[::1]"):
        sent = live.client.post("/predict", files=files(encoded()), headers={"origin": origin})
        assert sent.status_code == 200


def test_names_count_beyond_this_machine_too(served_bundle, monkeypatch):
    settings = settings_for(served_bundle, insecure=True, allowed_hosts=("model.lan",))
    monkeypatch.setattr(ServeSettings, "is_local", False)  # as on an address of the network
    with running(settings) as live:
        for host, status in (
            ("model.lan", 200), ("model.lan:8000", 200), ("192.168.1.20:8000", 200),
            ("[fe80::1]:80", 200), ("evil.example", 403), ("", 403),
        ):  # fmt: skip
            assert live.client.get("/model", headers={"host": host}).status_code == status, host
        here = {"host": "192.168.1.20:8000"}
        for origin, status in (
            ("http://192.168.1.20:8000", 200), ("http://model.lan", 200),
            ("http://203.0.113.7", 403), ("http://192.168.1.20:9999", 403),
        ):  # fmt: skip
            sent = live.client.get("/model", headers={**here, "origin": origin})
            assert sent.status_code == status, origin


@pytest.mark.parametrize(
    "limits", [DecodingLimits(formats=("JPEG",)), DecodingLimits(max_pixels=3000)]
)
def test_limits_for_clients_do_not_refuse_the_golden_picture(served_bundle, limits):
    with running(settings_for(served_bundle, decoding=limits)) as live:
        assert live.client.get("/readyz").status_code == 200
        good = encoded(format="JPEG")
        assert live.client.post("/predict", files=files(good)).status_code == 200
        refused = live.client.post("/predict", files=files(encoded(size=(80, 60))))
        assert code_of(refused) in ("unsupported_format", "too_many_pixels")


def test_decoders_fit_a_container_s_memory(monkeypatch):
    monkeypatch.setattr(decoders, "usable_cores", lambda: 16)
    for limits, workers, expected in (
        ([], 1, 8), ([4 << 30], 1, 3), ([64 << 30, 4 << 30], 2, 1), ([1 << 30], 1, 1),
    ):  # fmt: skip
        monkeypatch.setattr(decoders, "memory_limits", lambda limits=limits: limits)
        assert decoders.decoders_for(ServeSettings(bundle="x", workers=workers)) == expected


def test_no_decoder_says_when_to_come_back(live, monkeypatch):
    def nothing(*_):
        raise DecodingError("no process", NO_DECODER)

    monkeypatch.setattr(live.service._decoders.pool, "decode", nothing)
    refused = live.client.post("/predict", files=files(encoded()))
    assert code_of(refused) == "no_decoder"
    assert refused.headers["retry-after"] == "1"


def value_of(text, start):
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(start))


def test_metrics_count_what_was_answered(live):
    before = live.client.get("/metrics").text
    found = live.client.post("/predict", files=files(encoded(3), encoded(4), b"bad")).json()
    after = live.client.get("/metrics").text

    def grown(start):
        return value_of(after, start) - value_of(before, start)

    names = [p["class"] for p in found["predictions"] if "class" in p]
    for name in set(names):
        assert grown(f'headstart_predictions_total{{class="{name}"}}') == names.count(name)
    assert grown("headstart_unknown_total") == 2
    assert grown("headstart_images_total") == 2
    assert grown('headstart_refusals_total{code="unsupported_format"}') == 1
    assert grown('headstart_requests_total{route="/predict",status="200"}') == 1
    assert value_of(after, "headstart_waiting_images") == 0
    assert value_of(after, "headstart_ready_workers") == 1


def test_beyond_the_queue_there_is_503_at_once(live):
    batcher = live.service._batcher
    answer, go_on = batcher.answer, threading.Event()

    def slow(pixels):
        go_on.wait(20)
        return answer(pixels)

    batcher.answer = slow
    statuses = []

    def ask():
        response = httpx.post(f"{live.url}/predict", files=files(*[encoded()] * 4), timeout=60)
        statuses.append(response.status_code)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    try:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 15
        while live.service.waiting < 64 and time.monotonic() < deadline:
            time.sleep(0.02)
        refused = live.client.post("/predict", files=files(encoded()))
        assert code_of(refused) == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        assert live.client.get("/healthz").status_code == 200  # the loop is free
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
        batcher.answer = answer
    assert statuses == [200] * 16
    assert live.service.waiting == 0


def test_a_defect_is_told_without_details_and_costs_no_other_request(live):
    batcher = live.service._batcher
    answer = batcher.answer

    def broken(pixels):
        raise RuntimeError("secret detail")

    batcher.answer = broken
    with logged() as lines:
        try:
            response = live.client.post("/predict", files=files(encoded()))
        finally:
            batcher.answer = answer
        assert live.client.post("/predict", files=files(encoded())).status_code == 200
    assert code_of(response) == "internal"
    assert "secret" not in response.text
    assert "secret detail" in "".join(lines)


@contextlib.contextmanager
def logged():
    """What is logged while the block runs, as lines; a service must run already."""
    caught = []

    class Catching(logging.Handler):
        def emit(self, record):
            caught.append(JsonFormatter().format(record))

    handler = Catching()
    logging.getLogger(LOGGER).addHandler(handler)
    yield caught
    logging.getLogger(LOGGER).removeHandler(handler)


def test_logs_are_json_without_names(live):
    named = [("files", ("patient-4711.png", encoded(), "image/png"))]
    with logged() as lines:
        live.client.post("/predict", files=named)
        live.client.get("/model")  # on the same connection: the line of the first is written
    line = json.loads(lines[0])
    assert (line["route"], line["images"], line["status"]) == ("/predict", 1, 200)
    assert "4711" not in "".join(lines)


def test_token_and_kept_files(served_bundle, tmp_path):
    settings = settings_for(served_bundle, token=TOKEN, keep=str(tmp_path / "kept"), log_names=True)
    assert TOKEN not in repr(settings)
    right = {"authorization": f"Bearer {TOKEN}"}
    with running(settings) as live:
        for headers in (
            {}, {"authorization": TOKEN}, {"authorization": f"Basic {TOKEN}"},
            {"authorization": f"Bearer {TOKEN}x"}, {"authorization": "Bearer"},
            {"authorization": f"Bearer {TOKEN[:-1]}"}, {"authorization": b"Bearer \xff\xfe"},
        ):  # fmt: skip
            for method, path in (("POST", "/predict"), ("GET", "/model"), ("GET", "/metrics"),
                                 ("GET", "/docs"), ("GET", "/openapi.json")):  # fmt: skip
                response = live.client.request(method, path, headers=headers)
                assert code_of(response) == "unauthorized"
                assert response.headers["www-authenticate"] == "Bearer"
        assert live.client.get("/healthz").status_code == 200
        assert live.client.get("/readyz").status_code == 200
        good = encoded()
        sent = [("files", ("../../up.png", data, "image/png")) for data in (good, good, b"bad")]
        with logged() as lines:
            response = live.client.post("/predict", files=sent, headers=right)
            foreign = live.client.get("/model", headers={**right, "host": "models.example"})
        assert [p["name"] for p in response.json()["predictions"]] == ["up.png"] * 3
        assert foreign.status_code == 200  # whoever has the token may call it by any name
    kept = list((tmp_path / "kept").iterdir())
    assert [path.read_bytes() for path in kept] == [good]
    assert kept[0].stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    assert '"names": ["up.png", "up.png", "up.png"]' in "".join(lines)


def test_a_wrong_golden_prediction_is_never_ready(tmp_path):
    folder = write_bundle(tmp_path / "model")
    about = json.loads((folder / "bundle.json").read_text())
    about["golden"]["probabilities"] = about["golden"]["probabilities"][::-1]
    rewrite(folder, "bundle.json", json.dumps(about).encode())
    with running(settings_for(folder)) as live:
        assert live.client.get("/healthz").status_code == 200
        ready = live.client.get("/readyz")
        assert code_of(ready) == "not_ready"
        assert "golden prediction is off by" in ready.json()["error"]["message"]
        assert code_of(live.client.post("/predict", files=files(encoded()))) == "not_ready"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0"}, "without a token"),
        ({"token": "short"}, "at least 16 characters"),
        ({"token": "of ünusual letters"}, "printable ASCII"),
        ({"port": 70_000}, "`port` must be between 0 and 65,535, got 70000"),
        ({"workers": 0}, "`workers` must be"),
        ({"engine": "tensorrt"}, "`engine` must be one of"),
        ({"queue_images": 0}, "`queue_images` must be between 1 and 100,000, got 0"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(UsageError, match=message):
        ServeSettings(bundle="x", **changes)


def test_beyond_this_machine_with_a_token_or_on_purpose():
    assert not ServeSettings(bundle="x", host="0.0.0.0", token=TOKEN).is_local
    assert not ServeSettings(bundle="x", host="::", insecure=True).is_local
    assert ServeSettings(bundle="x", host="127.0.0.2").is_local
