"""Where a run logs to: all of it to a file, what a person wants to see to the console."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

LOGGERS = ("d2_detr", "detectron2", "fvcore")


def start_logs(output_dir: str) -> None:
    """Log to the console and to log.txt in a folder, and no longer to that of an earlier run in the same process."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    streams = [getattr(handler, "stream", None) for log in loggers for handler in log.handlers]
    files = [Path(name) for stream in streams if "log.txt" in (name := str(getattr(stream, "name", "")))]
    if any(file.parent != Path(output_dir) for file in files):
        for log in loggers:
            log.handlers = [handler for handler in log.handlers if type(handler) is not logging.StreamHandler]
        setup_logger.cache_clear()
    rank = comm.get_rank()
    setup_logger(output_dir, distributed_rank=rank, name="d2_detr")
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")  # these two as default_setup asks for them
    setup_logger(output_dir, distributed_rank=rank)


@contextmanager
def console_spared() -> Iterator[None]:
    """What Detectron2 and fvcore log and pycocotools prints meanwhile goes to the file alone, but for warnings and the
    progress of an evaluation: environment, config and model are 500 lines, behind which nobody would see the class
    table."""
    logs = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    handlers = [handler for log in logs for handler in log.handlers if in_console(handler)]
    for handler in handlers:
        handler.addFilter(_matters)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_matters)
        if text := printed.getvalue().strip():
            file_logger().info(text)


def _matters(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or str(record.msg).startswith("Inference done")


def file_logger() -> logging.Logger:
    """A logger for the lines that would disturb one that moves: to the files of the plugin's logger alone."""
    log = logging.getLogger(f"{__name__}.file")
    log.propagate = False
    log.handlers = [handler for handler in logging.getLogger("d2_detr").handlers if not in_console(handler)]
    return log


def in_console(handler: logging.Handler) -> bool:
    return getattr(handler, "stream", None) in (sys.stdout, sys.stderr, sys.__stdout__)  # the last, where it is caught
