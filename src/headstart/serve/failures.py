"""Every way a request can fail: a stable code, its status, and what it means.

Programs act on the code; the message is for people and may change. The table is part of the API
and stands in `/docs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Failure:
    """One code.

    Attributes:
        status: of HTTP.
        about: what it means and what to do.
    """

    status: int
    about: str


FAILURES: dict[str, Failure] = {
    "bad_http": Failure(400, "The request is not HTTP/1.1, or its head is too large."),
    "bad_form": Failure(400, "The multipart form is damaged or has fields that are not known."),
    "no_files": Failure(400, "No image was sent."),
    "too_many_files": Failure(400, "More images than one request may hold."),
    "too_many_parts": Failure(400, "The form has too many parts."),
    "part_headers_too_large": Failure(400, "The head of a part of the form is too large."),
    "unauthorized": Failure(401, "The token is missing or wrong."),
    "host_not_allowed": Failure(403, "The service may not be called by this name."),
    "origin_not_allowed": Failure(403, "A page of another site asks, and there is no token."),
    "not_found": Failure(404, "There is no such path."),
    "method_not_allowed": Failure(405, "The path does not take this method."),
    "body_timeout": Failure(408, "The body took too long to arrive."),
    "body_too_large": Failure(413, "The body is larger than a request may be."),
    "file_too_large": Failure(413, "An image's file is larger than it may be."),
    "too_many_pixels": Failure(413, "The picture has more pixels than it may have."),
    "too_large_for_memory": Failure(413, "Decoding would take more memory than it may."),
    "unsupported_body": Failure(415, "The body's type or encoding is not one that is read."),
    "unsupported_format": Failure(415, "The file is no image of an accepted format."),
    "undecodable_image": Failure(422, "The image is truncated, damaged or has no defined colours."),
    "too_many_frames": Failure(422, "The file has more frames or pages than it may have."),
    "decoding_timeout": Failure(422, "Decoding took too long and was stopped."),
    "decoder_crashed": Failure(422, "The image crashed its decoder."),
    "bad_request": Failure(400, "The request cannot be answered as it is."),
    "internal": Failure(500, "A defect of the service; the log has the request's number."),
    "no_decoder": Failure(503, "The system starts no process to decode with; try again."),
    "not_ready": Failure(503, "The model is being loaded, or does not answer as it should."),
    "overloaded": Failure(503, "As much is waiting as may wait; try again after Retry-After."),
}


class RefusedError(Exception):
    """A request, or one image of it, that is not answered."""

    def __init__(self, code: str, message: str = "", *, retry_after_s: int | None = None) -> None:
        """Keep the code, and a message where the table's is too general."""
        failure = FAILURES[code]
        self.code = code
        self.status = failure.status
        self.message = message or failure.about
        self.retry_after_s = retry_after_s
        super().__init__(self.message)

    @property
    def body(self) -> dict[str, Any]:
        """What the client is told."""
        return {"error": {"code": self.code, "message": self.message}}

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer, beyond the usual ones."""
        headers = {}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        if self.code == "unauthorized":
            headers["www-authenticate"] = "Bearer"
        return headers


def code_of_status(status: int) -> str:
    """The code for a status that a library chose."""
    known = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    return known.get(status, "internal" if status >= 500 else "bad_request")
