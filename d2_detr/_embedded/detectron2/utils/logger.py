"""Logging to the terminal (rank 0) and to a file per rank, and helpers that log a message only now and then."""

import atexit
import functools
import logging
import os
import sys
import time
from collections import Counter
from typing import IO, Any

from tabulate import tabulate
from termcolor import colored

from detectron2._missing import missing_attribute
from detectron2.utils.file_io import PathManager

_DATE_FORMAT = "%m/%d %H:%M:%S"
_counts: Counter[tuple] = Counter()
_last_logged: dict[tuple, float] = {}


class _ColorfulFormatter(logging.Formatter):
    """Shortens the root logger's name and marks warnings and errors in red."""

    def __init__(self, root_name: str, abbrev_name: str):
        super().__init__(colored("[%(asctime)s %(name)s]: ", "green") + "%(message)s", _DATE_FORMAT)
        self._root, self._abbrev = f"{root_name}.", abbrev_name and f"{abbrev_name}."

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.name = record.name.replace(self._root, self._abbrev)
        message = super().formatMessage(record)
        if record.levelno == logging.WARNING:
            return f"{colored('WARNING', 'red', attrs=['blink'])} {message}"
        if record.levelno >= logging.ERROR:
            return f"{colored('ERROR', 'red', attrs=['blink', 'underline'])} {message}"
        return message


@functools.lru_cache  # asking twice must not add the handlers twice
def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Set up the logger `name` at level DEBUG.

    `output` is a .txt or .log file, or a folder for log.txt; ranks above 0 append `.rank{r}` and stay off the terminal.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name

    plain = logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", _DATE_FORMAT)
    if configure_stdout and distributed_rank == 0:
        _add_handler(logger, sys.stdout, _ColorfulFormatter(name, abbrev_name) if color else plain)
    if output is not None:
        path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
        if distributed_rank > 0:
            path += f".rank{distributed_rank}"
        PathManager.mkdirs(os.path.dirname(path))
        _add_handler(logger, _open_log(path), plain)
    return logger


def _add_handler(logger: logging.Logger, stream: IO[str], formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(formatter)
    logger.addHandler(handler)


@functools.cache  # loggers that name the same file share its stream
def _open_log(path: str) -> IO[str]:
    stream = PathManager.open(path, "a")
    atexit.register(stream.close)
    return stream


def _caller() -> tuple[str, tuple]:
    """Module name of the code that called this file, and a key for the very line."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__:
        frame = frame.f_back
    module = frame.f_globals["__name__"]
    return "detectron2" if module == "__main__" else module, (frame.f_code.co_filename, frame.f_lineno)


def log_first_n(
    lvl: int, msg: str, n: int = 1, *, name: str | None = None, key: str | tuple[str, ...] = "caller"
) -> None:
    """Log the first `n` times; `key` says what counts as the same: "caller" (the line), "message", or both."""
    keys = (key,) if isinstance(key, str) else key
    assert keys, "key must name 'caller', 'message' or both"
    module, line = _caller()
    identity = (line if "caller" in keys else None, msg if "message" in keys else None)
    _counts[identity] += 1
    if _counts[identity] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log the 1st, (n+1)th, (2n+1)th, ... time that this line is reached."""
    module, line = _caller()
    if _counts[line] % n == 0:
        logging.getLogger(name or module).log(lvl, msg)
    _counts[line] += 1


def log_every_n_seconds(lvl: int, msg: str, n: float = 1, *, name: str | None = None) -> None:
    """Log unless this line logged less than `n` seconds ago."""
    module, line = _caller()
    now = time.time()
    if now - _last_logged.get(line, -float("inf")) >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _last_logged[line] = now


def create_small_table(small_dict: dict[str, Any]) -> str:
    """A table of one row, with the keys as its header."""
    align = {"stralign": "center", "numalign": "center"}
    return tabulate([small_dict.values()], headers=small_dict.keys(), tablefmt="pipe", floatfmt=".3f", **align)


__getattr__ = missing_attribute(__name__)
