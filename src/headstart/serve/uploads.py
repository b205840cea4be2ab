"""From the body of a request to the images in it, within limits at every step.

The body is parsed while it arrives and kept in memory only (the gate bounds the sum of all). A
form's own file names are used for nothing but the answer and, where asked for, the log: no path is
ever made of one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

from headstart.data import printable
from headstart.serve.failures import RefusedError
from headstart.serve.settings import RequestLimits

FIELDS = ("files", "file", "image", "images")
FORM = "multipart/form-data"
PLAIN_TYPES = ("application/octet-stream", "image/")
LONGEST_NAME = 200
_PLAIN_ENCODINGS = (b"", b"binary", b"8bit", b"7bit")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One file.

    Attributes:
        name: as the client calls it, without folders and unprintable letters.
        data: encoded bytes.
    """

    name: str
    data: bytes


async def read_uploads(
    content_type: str, chunks: AsyncIterator[bytes], limits: RequestLimits
) -> list[Upload]:
    """The images of one body.

    Args:
        content_type: header of the request.
        chunks: the body as it arrives.
        limits: of requests.

    Raises:
        RefusedError: the body is not of a form that is read, is beyond a limit, or holds no image.
    """
    kind, options = parse_options_header(content_type)
    name = kind.decode("latin-1").lower()
    if name == FORM:
        uploads = await read_form(options.get(b"boundary", b""), chunks, limits)
    elif name.startswith(PLAIN_TYPES):
        uploads = [await read_plain(chunks, limits)]
    else:
        raise RefusedError(
            "unsupported_body",
            f"The content type must be {FORM}, image/* or application/octet-stream, "
            f"got '{printable(name[:80])}'.",
        )
    if not any(upload.data for upload in uploads):
        raise RefusedError("no_files", "No image was sent. Send one or several as 'files'.")
    return uploads


async def read_plain(chunks: AsyncIterator[bytes], limits: RequestLimits) -> Upload:
    """A body that is one image."""
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        check_file_size(len(content), limits)
    return Upload(name="", data=bytes(content))


async def read_form(
    boundary: bytes, chunks: AsyncIterator[bytes], limits: RequestLimits
) -> list[Upload]:
    """A body that is a multipart form."""
    if not boundary:
        raise RefusedError("bad_form", "The content type of the form names no boundary.")
    form = FormCollector(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in chunks:
            if form.finished:
                continue  # what follows the last boundary is no part of the form
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise RefusedError("bad_form", "The multipart form is damaged.") from error
    if not form.finished:
        raise RefusedError("bad_form", "The multipart form ends before its last boundary.")
    return form.uploads


def check_file_size(size: int, limits: RequestLimits) -> None:
    """Refuse an image that grows beyond its limit."""
    if size > limits.max_file_bytes:
        raise RefusedError(
            "file_too_large", f"An image may have {limits.max_file_bytes:,} bytes, this has more."
        )


def plain_name(name: bytes) -> str:
    """The last part of a file's name, whatever slashes it has, short and printable."""
    text = name.decode("utf-8", "replace")
    last = PureWindowsPath(PurePosixPath(text).name).name
    return printable(last)[:LONGEST_NAME]


class FormCollector:
    """What a multipart parser calls while it reads: counts parts and their heads, keeps files."""

    def __init__(self, limits: RequestLimits) -> None:
        """Begin with nothing."""
        self.limits = limits
        self.uploads: list[Upload] = []
        self.finished = False
        self._parts = 0
        self._begin_part()

    def callbacks(self) -> MultipartCallbacks:
        """By the names that `python_multipart` knows."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_head,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._field, self._value = bytearray(), bytearray()
        self._head: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._name = b""
        self._content = bytearray()

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._value += data[start:end]

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self.limits.max_part_header_bytes:
            raise RefusedError("part_headers_too_large")

    def _end_header(self) -> None:
        self._count_head(4)
        self._head[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _check_head(self) -> None:
        self._parts += 1
        if self._parts > self.limits.max_parts:
            raise RefusedError(
                "too_many_parts", f"A form may have {self.limits.max_parts} parts, this has more."
            )
        disposition = self._head.get(b"content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field not in FIELDS:
            raise RefusedError(
                "bad_form",
                f"The form has a field '{printable(field[:80])}'; send images as 'files'.",
            )
        if self._head.get(b"content-transfer-encoding", b"").lower() not in _PLAIN_ENCODINGS:
            raise RefusedError("unsupported_body", "A part is encoded; send the image's own bytes.")
        if len(self.uploads) >= self.limits.max_files:
            raise RefusedError(
                "too_many_files",
                f"A request may hold {self.limits.max_files} images, this has more.",
            )
        self._name = options.get(b"filename", b"")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        check_file_size(len(self._content) + end - start, self.limits)
        self._content += data[start:end]

    def _end_part(self) -> None:
        self.uploads.append(Upload(name=plain_name(self._name), data=bytes(self._content)))
        self._content = bytearray()

    def _end(self) -> None:
        self.finished = True
