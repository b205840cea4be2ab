"""The routes, over a service; `create_app` gives an ASGI application with its gate."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import headstart
from headstart.serve.answers import (
    ErrorAnswer,
    HealthAnswer,
    ModelAnswer,
    PredictAnswer,
    no_prediction_body,
    prediction_body,
)
from headstart.serve.failures import FAILURES, RefusedError, code_of_status
from headstart.serve.gate import EXCHANGE, Exchange, Gate
from headstart.serve.metrics import CONTENT_TYPE
from headstart.serve.pages import docs_page
from headstart.serve.service import Fail, Service
from headstart.serve.settings import ServeSettings
from headstart.serve.uploads import read_uploads

DESCRIPTION = "Classes and probabilities for pictures, from one Headstart bundle."
_IMAGE = {"type": "string", "format": "binary"}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"files": {"type": "array", "items": _IMAGE, "minItems": 1}},
                "required": ["files"],
                "additionalProperties": False,
            }
        },
        "application/octet-stream": {"schema": _IMAGE},
    },
}


def refused(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its description."""
    statuses: dict[int | str, list[str]] = {}
    for code in dict.fromkeys(codes):
        statuses.setdefault(FAILURES[code].status, []).append(code)
    return {s: {"model": ErrorAnswer, "description": ", ".join(c)} for s, c in statuses.items()}


GUARDED = ("bad_http", "unauthorized", "host_not_allowed", "body_too_large", "unsupported_body",
           "body_timeout")  # fmt: skip


def create_app(settings: ServeSettings, fail: Fail | None = None) -> Gate:
    """An ASGI application; loading begins with its lifespan.

    Args:
        settings: of the service.
        fail: called where the model cannot be loaded.
    """
    service = Service(settings, fail)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="Headstart",
        version=headstart.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    add_errors(app)
    add_prediction(app, service)
    add_state(app, service)
    add_documents(app, settings)
    return Gate(app, service)


def add_errors(app: FastAPI) -> None:
    """Every error as JSON with a code."""

    async def on_refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return refuse(request, error)

    async def on_status(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refuse(request, RefusedError(code_of_status(error.status_code)), error.headers)

    async def on_defect(request: Request, _: Exception) -> Response:
        return refuse(request, RefusedError("internal"))

    async def on_leaving(_request: Request, _: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    app.add_exception_handler(RefusedError, on_refusal)
    app.add_exception_handler(HTTPException, on_status)
    app.add_exception_handler(ClientDisconnect, on_leaving)
    app.add_exception_handler(Exception, on_defect)


def refuse(request: Request, refusal: RefusedError, headers: Any = None) -> JSONResponse:
    """The answer to a request that is refused, counted."""
    exchange: Exchange = request.scope[EXCHANGE]
    exchange.code = refusal.code
    exchange.service.metrics.refusals.labels(refusal.code).inc()
    extra = dict(headers or {}) | refusal.headers
    return JSONResponse(refusal.body, status_code=refusal.status, headers=extra)


def add_prediction(app: FastAPI, service: Service) -> None:
    """`/predict`."""

    @app.post(
        "/predict",
        summary="Classify one or several images",
        description="A form with the images as `files`, or one image as the whole body. Where some "
        "of several images cannot be answered, their places hold an error; where none can, the "
        "status is that of the first.",
        response_model=PredictAnswer,
        responses=refused(*GUARDED, *FAILURES),
        openapi_extra={"requestBody": _BODY},
    )
    async def predict(request: Request) -> Response:
        content_type = request.headers.get("content-type", "")
        uploads = await read_uploads(content_type, request.stream(), service.settings.requests)
        exchange: Exchange = request.scope[EXCHANGE]
        exchange.images = len(uploads)
        exchange.names = [upload.name for upload in uploads]
        answers = await exchange.while_there(service.predict(uploads))
        if isinstance(answers[0], RefusedError) and all(
            isinstance(a, RefusedError) for a in answers
        ):
            raise answers[0]
        assert service.model is not None
        bodies = [
            no_prediction_body(i, upload.name, answer)
            if isinstance(answer, RefusedError)
            else prediction_body(i, upload.name, answer)
            for i, (upload, answer) in enumerate(zip(uploads, answers, strict=True))
        ]
        return JSONResponse(
            {
                "model_digest": service.model.classifier.root_digest,
                "weights_licence": service.model.weights_licence,
                "predictions": bodies,
            }
        )


def add_state(app: FastAPI, service: Service) -> None:
    """`/healthz`, `/readyz`, `/metrics` and `/model`."""

    @app.get("/healthz", summary="Whether the process answers", response_model=HealthAnswer,
             responses=refused("bad_http"))  # fmt: skip
    async def healthz() -> Response:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", summary="Whether the golden prediction matched",
             response_model=HealthAnswer, responses=refused("bad_http", "not_ready"))  # fmt: skip
    async def readyz() -> Response:
        if service.problem:
            raise RefusedError("not_ready", service.problem, retry_after_s=2)
        return JSONResponse({"status": "ready"})

    @app.get("/model", summary="What is served", response_model=ModelAnswer,
             responses=refused(*GUARDED, "not_ready"))  # fmt: skip
    async def model() -> Response:
        if service.model is None:
            raise RefusedError("not_ready", service.problem, retry_after_s=2)
        return JSONResponse(service.model.describe() | {"limits": limits_of(service.settings)})

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response,
             responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
                        **refused(*GUARDED)})  # fmt: skip
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def add_documents(app: FastAPI, settings: ServeSettings) -> None:
    """`/openapi.json` and `/docs`, which loads nothing from anywhere."""

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(described(app, settings))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(described(app, settings)))


def described(app: FastAPI, settings: ServeSettings) -> dict[str, Any]:
    """The OpenAPI description, with the token where one is asked for."""
    schema = app.openapi()
    if settings.token:
        schemes = schema.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        for path in ("/predict", "/model", "/metrics"):
            for operation in schema["paths"][path].values():
                operation["security"] = [{"token": []}]
    return schema


def limits_of(settings: ServeSettings) -> dict[str, int | float | list[str]]:
    """The limits that a client can keep to."""
    return {
        "max_files": settings.requests.max_files,
        "max_request_bytes": settings.requests.max_request_bytes,
        "max_file_bytes": settings.requests.max_file_bytes,
        "max_pixels": settings.decoding.max_pixels,
        "max_frames": settings.decoding.max_frames,
        "body_timeout_s": settings.requests.body_timeout_s,
        "formats": list(settings.decoding.formats),
    }
