"""The settings of a service: every limit in one place, validated when made."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from headstart.data.guarded.squares import ALLOWED_FORMATS, DecodingLimits
from headstart.errors import UsageError

MIB = 1 << 20
TOKEN_VARIABLE = "HEADSTART_TOKEN"
SHORTEST_TOKEN = 16
ENGINES = ("auto", "onnx", "onnx-int8", "torch")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """What one client, and all together, may ask for.

    Attributes:
        max_request_bytes: of a body, counted while it arrives.
        max_file_bytes: of one image.
        max_files: images in one request.
        max_part_header_bytes: of one part of a form.
        body_timeout_s: for a whole body, however it trickles.
        header_timeout_s: for the head of a request, and for a reader that does not take its answer.
        max_header_bytes: of a request's head.
        max_connections: at once in one worker.
        buffer_bytes: of all bodies at once in one worker.
    """

    max_request_bytes: int = 64 * MIB
    max_file_bytes: int = 20 * MIB
    max_files: int = 32
    max_part_header_bytes: int = 8192
    body_timeout_s: float = 30.0
    header_timeout_s: float = 10.0
    max_header_bytes: int = 16384
    max_connections: int = 512
    buffer_bytes: int = 256 * MIB

    @property
    def max_parts(self) -> int:
        """Parts in one form: its files and a few fields."""
        return self.max_files + 8


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How a bundle is served.

    Attributes:
        bundle: folder of a run or a bundle.
        host: address to listen on.
        port: 0 takes a free one.
        workers: processes that answer.
        engine: 'auto' takes ONNX where the bundle has it, else torch.
        device: for torch.
        precision: for torch.
        expect_digest: refuse any other bundle.
        token: every request but health checks must carry it; '' asks for none.
        insecure: listen beyond this machine without a token.
        allowed_hosts: names by which this service may be called where there is no token.
        keep: folder for what is uploaded, None keeps nothing.
        log_names: write file names into the log.
        requests: limits of requests.
        decoding: limits of pictures.
        decoding_timeout_s: for one picture.
        decoders: processes that decode in one worker; 0 takes as many as cores, at most 8, and
            as fit the memory that a container may use.
        queue_images: admitted and not yet answered in one worker; while there are so many, the
            next request gets 503 at once.
        max_batch: images in one forward pass.
        window_ms: how long a batch waits for images that are being decoded.
        drain_s: how long requests in flight may take after SIGTERM.
    """

    bundle: str
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    expect_digest: str | None = None
    token: str = field(default="", repr=False)
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    keep: str | None = None
    log_names: bool = False
    requests: RequestLimits = field(default_factory=RequestLimits)
    decoding: DecodingLimits = field(default_factory=DecodingLimits)
    decoding_timeout_s: float = 5.0
    decoders: int = 0
    queue_images: int = 32
    max_batch: int = 32
    window_ms: float = 5.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: the first such setting.
        """
        if self.engine not in ENGINES:
            raise UsageError(f"`engine` must be one of {', '.join(ENGINES)}, got '{self.engine}'.")
        limits = self.requests
        for name, value, low, high in (
            ("port", self.port, 0, 65535),
            ("workers", self.workers, 1, 64),
            ("queue_images", self.queue_images, 1, 100_000),
            ("max_batch", self.max_batch, 1, 1024),
            ("window_ms", self.window_ms, 0, 1000),
            ("decoding_timeout_s", self.decoding_timeout_s, 0.1, 600),
            ("max_files", limits.max_files, 1, 1000),
            ("max_file_bytes", limits.max_file_bytes, 1, limits.max_request_bytes),
            ("max_request_bytes", limits.max_request_bytes, 1, limits.buffer_bytes),
            ("body_timeout_s", limits.body_timeout_s, 0.1, 3600),
            ("max_pixels", self.decoding.max_pixels, 1, 180_000_000),
            ("max_frames", self.decoding.max_frames, 1, 100_000),
        ):
            if not low <= value <= high:
                raise UsageError(f"`{name}` must be between {low} and {high:,}, got {value}.")
        self._check_access()
        unknown = set(self.decoding.formats) - set(ALLOWED_FORMATS)
        if unknown or not self.decoding.formats:
            raise UsageError(
                f"`formats` must be some of {', '.join(ALLOWED_FORMATS)}, "
                f"got '{', '.join(sorted(unknown))}'."
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def _check_access(self) -> None:
        if self.token and len(self.token) < SHORTEST_TOKEN:
            raise UsageError(
                f"`token` must have at least {SHORTEST_TOKEN} characters, got {len(self.token)}. "
                "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        if not (self.token.isascii() and self.token.isprintable()) or " " in self.token:
            raise UsageError("`token` must be printable ASCII without spaces. Choose another one.")
        if not (self.is_local or self.token or self.insecure):
            raise UsageError(
                f"Listening on '{self.host}' without a token would let everybody use the model. "
                f"Set {TOKEN_VARIABLE} or --token, or say --insecure."
            )
