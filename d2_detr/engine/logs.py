"""Logging of a run: everything to a file, what a person wants to follow to the console."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from termcolor import colored

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

LOGGERS = ("d2_detr", "detectron2", "fvcore")
# What reaches the console of Detectron2's messages, beside warnings: environment, config and model alone are 500 lines.
PROGRESS = "Inference done"
TABLES = ("COCO's summary", "Evaluation results for", "Per-category", "Panoptic quality")


class ConsoleFormatter(logging.Formatter):
    """Time and message; the level only if it is a warning or worse."""

    def __init__(self) -> None:
        """Create the formatter."""
        super().__init__("[%(asctime)s] %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Mark warnings and errors in color."""
        message = super().formatMessage(record)
        if record.levelno < logging.WARNING:
            return message
        return f"{colored(record.levelname, 'red')} {message}"


class ConsoleFilter(logging.Filter):
    """What a person wants to follow: this project's messages, warnings, the progress of an evaluation."""

    def __init__(self, *, tables: bool):
        """Create the filter.

        Args:
            tables: show the tables of an evaluation. In a training, every evaluation is a line instead.
        """
        super().__init__()
        self._tables = tables

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the console shows a message."""
        if record.levelno >= logging.WARNING:
            return True
        message = str(record.msg)
        if message.startswith(TABLES):
            return self._tables
        is_own = record.name.startswith("d2_detr") and record.levelno >= logging.INFO
        return is_own or message.startswith(PROGRESS)


def setup_logging(output_dir: str, *, tables: bool = False) -> None:
    """Log to the console and to log.txt in a folder, and no longer to that of an earlier run in the same process.

    The file has module names, tables and tracebacks. Progress that a terminal shows as a bar is logged at DEBUG.

    Args:
        output_dir: the folder.
        tables: show the tables of an evaluation in the console.
    """
    if any(Path(handler.stream.name).parent != Path(output_dir) for handler in _handlers() if not is_console(handler)):
        for name in LOGGERS:
            log = logging.getLogger(name)
            log.handlers = [handler for handler in log.handlers if type(handler) is not logging.StreamHandler]
        setup_logger.cache_clear()
    logging.raiseExceptions = False  # a full disk is reported once, not by each line of the log
    rank = comm.get_rank()
    setup_logger(output_dir, distributed_rank=rank, name="d2_detr")
    # As default_setup calls it, which then adds no handlers of its own.
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    setup_logger(output_dir, distributed_rank=rank)
    for handler in _handlers():
        if is_console(handler):
            handler.setFormatter(ConsoleFormatter())
            handler.filters = [ConsoleFilter(tables=tables)]


def is_console(handler: logging.Handler) -> bool:
    """Return whether a handler writes to stdout or stderr."""
    # The last: where stdout is captured.
    return getattr(handler, "stream", None) in (sys.stdout, sys.stderr, sys.__stdout__)


def _handlers() -> list[logging.StreamHandler]:
    return [
        handler
        for name in LOGGERS
        for handler in logging.getLogger(name).handlers
        if type(handler) is logging.StreamHandler
    ]
