"""Logging to the terminal (rank 0) and to one file per rank; small tables."""

import atexit
import functools
import logging
import os
import re
import sys
from typing import IO, Any

from tabulate import tabulate
from termcolor import colored

from detectron2._missing import missing_attribute
from detectron2.utils.file_io import PathManager

__getattr__ = missing_attribute(__name__)

_DATE_FORMAT = "%m/%d %H:%M:%S"


class _ColorfulFormatter(logging.Formatter):
    """Color warnings; abbreviate `detectron2` to `d2`, also for later handlers."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.name = re.sub(r"^detectron2\.", "d2.", record.name)
        message = super().formatMessage(record)
        if record.levelno < logging.WARNING:
            return message
        return f"{colored(record.levelname, 'red', attrs=['blink'])} {message}"


@functools.lru_cache  # a second call must not add the handlers again
def setup_logger(output: str | None = None, distributed_rank: int = 0, *, name: str = "detectron2") -> logging.Logger:
    """Set up the logger `name` at level DEBUG; only rank 0 logs to the terminal.

    `output` is a .txt or .log file, or a folder for log.txt; ranks above 0 append `.rank{r}`.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if distributed_rank == 0:
        prefix = colored("[%(asctime)s %(name)s]: ", "green")
        _add_handler(logger, sys.stdout, _ColorfulFormatter(prefix + "%(message)s", _DATE_FORMAT))
    if output is not None:
        path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
        path += f".rank{distributed_rank}" if distributed_rank > 0 else ""
        PathManager.mkdirs(os.path.dirname(path))
        line = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
        _add_handler(logger, _open_log(path), logging.Formatter(line, _DATE_FORMAT))
    return logger


def _add_handler(logger: logging.Logger, stream: IO[str], formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)


@functools.cache  # loggers with the same file share its stream
def _open_log(path: str) -> IO[str]:
    stream = PathManager.open(path, "a")
    atexit.register(stream.close)
    return stream


def create_small_table(small_dict: dict[str, Any]) -> str:
    """Format a dict as a table of one row, with its keys as headers."""
    return tabulate([small_dict.values()], list(small_dict), "pipe", ".3f", numalign="center", stralign="center")
