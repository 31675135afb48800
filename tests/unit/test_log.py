from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from dream_cad.log import LOGGER_NAMES, StructuredFormatter, configure_logging
from tests.conftest import SetSettings


@pytest.fixture(autouse=True)
def restore_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGER_NAMES]
    before = [(one, one.level, one.propagate, list(one.handlers)) for one in loggers]
    yield
    for one, level, propagate, handlers in before:
        one.setLevel(level)
        one.propagate, one.handlers = propagate, handlers


def format_record(message: str, **extra: object) -> str:
    record = logging.makeLogRecord(
        {"name": "dream_cad.queue", "levelname": "INFO", "msg": message, "created": 0.5, **extra}
    )
    return StructuredFormatter().format(record)


def test_line_has_time_level_logger_message_and_fields() -> None:
    line = format_record("job completed", job_id="0a", seconds=1.23456789, count=3)
    assert line == (
        "1970-01-01T00:00:00.500Z INFO dream_cad.queue: job completed "
        "job_id=0a seconds=1.23457 count=3"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a red chair", '"a red chair"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("", '""'),
        ("a=b", '"a=b"'),
    ],
)
def test_values_that_would_break_the_line_are_quoted(value: str, text: str) -> None:
    assert format_record("m", prompt=value).endswith(f" prompt={text}")


def test_a_prompt_cannot_forge_a_line() -> None:
    line = format_record("bad\nprompt", prompt="x\n2026 INFO forged")
    assert "\n" not in line


def test_traceback_follows_the_line() -> None:
    error = ValueError("boom")
    line = format_record("failed", exc_info=(ValueError, error, None))
    assert line.splitlines()[-1] == "ValueError: boom"


@pytest.mark.parametrize(
    ("level", "expected"), [("DEBUG", ["d", "i", "e"]), ("INFO", ["i", "e"]), ("error", ["e"])]
)
def test_log_level_setting_decides_what_is_written(
    set_settings: SetSettings, level: str, expected: list[str]
) -> None:
    set_settings(log_level=level)
    stream = io.StringIO()
    configure_logging(stream)
    logger = logging.getLogger("dream_cad.queue")
    logger.debug("d")
    logger.info("i")
    logger.error("e")
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == expected


def test_configuring_twice_writes_each_line_once() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(first)
    configure_logging(second)
    logging.getLogger("deployments.router").warning("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_private_marks_of_other_libraries_are_not_written() -> None:
    record = logging.makeLogRecord({"msg": "e", "_ray_timestamp_ns": 1, "job": "j"})
    assert StructuredFormatter().format(record).endswith("e job=j")
