"""What the service says, as strict models, and how predictions become it."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from headstart.records import Predictions
from headstart.serve.failures import RefusedError


class Strict(BaseModel):
    """Exactly these fields, of exactly these types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)


class ErrorBody(Strict):
    """Why there is no answer."""

    code: str = Field(description="Stable; one of the table of codes.")
    message: str = Field(description="For people; may change.")


class ErrorAnswer(Strict):
    """What every request that fails gets."""

    error: ErrorBody


class Prediction(Strict):
    """The answer for one image."""

    index: int = Field(ge=0, description="Place of the image in the request, from 0.")
    name: str = Field(description="The file's name as sent, without folders.")
    class_: str = Field(alias="class", description="The most probable class.")
    confidence: float = Field(ge=0, le=1, description="Its calibrated probability.")
    probabilities: dict[str, float] = Field(description="Of every class, in class order.")
    positive: str | None = Field(description="The class that the model says yes or no about.")
    called_positive: bool | None = Field(
        description="Yes: the positive class's probability reaches the model's threshold; it need "
        "not be the most probable. Null where the model has no positive class."
    )
    set: list[str] | None = Field(
        description="Classes that cannot be excluded (conformal); null where the model has none."
    )
    unknown: bool | None = Field(
        description="Unlike everything the model has seen; null where it cannot tell."
    )
    outlier_score: float | None = Field(description="Higher is stranger.")


class NoPrediction(Strict):
    """An image without an answer, beside others that have one."""

    index: int = Field(ge=0, description="Place of the image in the request, from 0.")
    name: str = Field(description="The file's name as sent, without folders.")
    error: ErrorBody


class PredictAnswer(Strict):
    """The answer of `/predict`."""

    model_digest: str = Field(description="SHA-256 that identifies the bundle.")
    weights_licence: str
    predictions: list[Prediction | NoPrediction]


class HealthAnswer(Strict):
    """The process answers."""

    status: str


class ModelAnswer(Strict):
    """What is served."""

    digest: str
    class_names: list[str]
    backbone: str
    image_size: int
    preprocessing: str
    engine: str
    precision: str
    weights_licence: str
    code_licence: str
    headstart_version: str
    positive: str | None
    threshold: float | None
    gives_sets: bool
    set_miss_rate: float | None
    gives_unknown: bool
    learnt_on_boxes: bool
    golden: str
    limits: dict[str, int | float | list[str]]


def prediction_body(index: int, name: str, row: Predictions) -> dict[str, Any]:
    """A `Prediction` of a record with one row, as plain data."""
    values = row.probabilities[0].tolist()
    best = int(row.indices[0])
    strange = None if row.outlier_scores is None else float(row.outlier_scores[0])
    return {
        "index": index,
        "name": name,
        "class": row.class_names[best],
        "confidence": values[best],
        "probabilities": dict(zip(row.class_names, values, strict=True)),
        "positive": None if row.called is None else row.positive,
        "called_positive": None if row.called is None else bool(row.called[0]),
        "set": None if row.sets is None
        else [c for c, held in zip(row.class_names, row.sets[0], strict=True) if held],
        "unknown": None if row.unknown is None else bool(row.unknown[0]),
        "outlier_score": strange if strange is not None and math.isfinite(strange) else None,
    }  # fmt: skip


def no_prediction_body(index: int, name: str, refusal: RefusedError) -> dict[str, Any]:
    """A `NoPrediction` as plain data."""
    return {"index": index, "name": name, **refusal.body}
