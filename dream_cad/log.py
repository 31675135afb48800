"""Logging: one structured line per event, at the level of DREAM_CAD_LOG_LEVEL."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from dream_cad.settings import get_settings

LOGGER_NAMES = ("dream_cad", "deployments", "jobs")

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class StructuredFormatter(logging.Formatter):
    """Lines of ``time LEVEL logger: message key=value ...``, the keys given through ``extra``.

    The time is UTC in ISO 8601. A value with spaces, quotes or control characters is written as
    a JSON string, so that a line stays one line whatever a prompt holds.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record; a traceback, if any, follows on lines of its own."""
        moment = datetime.fromtimestamp(record.created, UTC)
        time_text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = _one_line(record.getMessage())
        fields = "".join(
            f" {key}={_value_text(value)}"
            for key, value in vars(record).items()
            if key not in _STANDARD_FIELDS and not key.startswith("_")  # Ray marks its records
        )
        line = f"{time_text} {record.levelname} {record.name}: {message}{fields}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def configure_logging(stream: TextIO | None = None) -> None:
    """Write this project's log lines to ``stream`` (standard error by default).

    Called by the programs (command line, deployments, jobs), never by the library on import.
    Calling it again replaces the former stream and level. Other libraries' logs are left alone.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(StructuredFormatter())
    handler.set_name("dream_cad")
    for name in LOGGER_NAMES:
        logger = logging.getLogger(name)
        for former in [h for h in logger.handlers if h.get_name() == "dream_cad"]:
            logger.removeHandler(former)
        logger.addHandler(handler)
        logger.setLevel(get_settings().log_level)
        logger.propagate = False


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _value_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    is_plain = bool(text) and text.isprintable() and not set(' "=') & set(text)
    return text if is_plain else json.dumps(text)
