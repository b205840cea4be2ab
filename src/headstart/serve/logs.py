"""Logs as JSON, one object a line on standard error.

No line holds an image, an address or a token; file names only where the settings ask for them.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

LOGGER = "headstart.serve"
_log = logging.getLogger(LOGGER)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, event and what else the record carries."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": record.process,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_event(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Write one line; an exception that is being handled goes with level ERROR."""
    with_traceback = level >= logging.ERROR and fields.pop("traceback", False)
    _log.log(level, event, extra={"fields": fields}, exc_info=bool(with_traceback))


def log_settings() -> dict[str, Any]:
    """For `logging.config`: ours and uvicorn's lines alike, third parties from warnings on."""
    own = {"handlers": ["stderr"], "level": "INFO", "propagate": False}
    quiet = {**own, "level": "WARNING"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.stderr",
            }
        },
        "loggers": {
            LOGGER: own,
            "uvicorn": quiet,
            "uvicorn.error": quiet,
            "python_multipart": {**own, "level": "ERROR"},
        },
    }
