"""Logs are events with fields: a name, then key=value or JSON. Never prompts, never paths of users.

`emit(logger, "turn_committed", session=…, tokens=…)` is the only way this package logs.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]


def emit(
    logger: logging.Logger, event: str, *, level: int = logging.INFO, **fields: object
) -> None:
    logger.log(level, event, extra={"fields": fields})


def incident(logger: logging.Logger, event: str, error: BaseException, **fields: object) -> None:
    """An exception nobody foresaw: the one place where a trace goes to the log."""
    logger.error(event, extra={"fields": fields}, exc_info=error)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items())
        line = f"{moment} {record.levelname.lower():7} {record.getMessage()} {fields}".rstrip()
        return line + (f"\n{_code_locations(record)}" if record.exc_info else "")


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["trace"] = _code_locations(record)
        return json.dumps(line, default=str)


def _code_locations(record: logging.LogRecord) -> str:
    """The trace without the exception's own text, which may quote a prompt."""
    kind, _, trace = record.exc_info or (None, None, None)
    lines = []
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(
            f"  {code.co_qualname} ({code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})"
        )
        trace = trace.tb_next
    return "\n".join([*lines, f"  {kind.__name__ if kind else 'unknown'}"])


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def configure(level: str, log_format: LogFormat) -> None:
    """Sends every event of ours to standard error. Called once, by the process's entry point."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
