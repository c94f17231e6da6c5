"""How the commands parse their options, report errors and name each other."""

from __future__ import annotations

import argparse
import difflib
import logging
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from d2_detr.utils.errors import InputError

logger = logging.getLogger(__name__)

DEBUG_VARIABLE = "D2_DETR_DEBUG"
# Each command, and the script in tools/ that does the same in a clone.
TOOLS = {
    "finetune": "finetune.py",
    "train": "train_net.py",
    "evaluate": "evaluate.py",
    "predict": "predict.py",
    "visualize": "visualize.py",
    "check": "check.py",
    "split": "split_coco.py",
    "convert": "converter.py",
    "via-to-coco": "via_to_coco.py",
    "make-panoptic": "make_panoptic.py",
    "prepare-balloon": "prepare_balloon.py",
    "benchmark": "benchmark.py",
    "benchmark-data": "benchmark_data.py",
    "demo": "demo.py",
}
_TOOLS_FOLDER = Path(__file__).parents[2] / "tools"  # of a clone


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the option that was probably meant or with a hint.

    Options are never abbreviated, and may stand before or after positional arguments. Every command has `--debug`.
    """

    def __init__(self, name: str, description: str, hints: Mapping[str, str] | None = None):
        """Create a parser that has only `--debug`.

        Args:
            name: of the command, a key of TOOLS.
            description: what it does, for --help; commands in it are shown in the form in which this one was started.
            hints: by name of an option that does not exist, what to do instead.
        """
        self._command = name
        super().__init__(
            prog=Path(sys.argv[0]).name if _is_tool() else f"d2_detr {name}",
            description=re.sub(r"(?m)^( *)d2_detr ([\w-]+)", lambda m: m[1] + command(m[2]), description),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.hints = hints or {}
        self.add_argument("--debug", action="store_true", help=f"show the traceback of an error ({DEBUG_VARIABLE}=1)")

    def parse_args(  # type: ignore[override]  # the overloads for other namespaces
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse; an unknown option is reported before a missing one, which it usually misspells."""
        if args is None:  # sys.argv keeps the name of the command, for the log
            args = sys.argv[2:] if sys.argv[1:2] == [self._command] else sys.argv[1:]
        for name in (arg.partition("=")[0] for arg in args if re.match(r"--\w|-[a-zA-Z]$", arg)):
            if name not in self._option_string_actions:
                self.error(self._unknown_option(name))
        parsed = self.parse_intermixed_args(args, namespace)
        if parsed.debug:
            os.environ[DEBUG_VARIABLE] = "1"  # also for the other processes of a group
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        sys.stdout.flush()
        self.exit(2, f"error: {message} ({self.prog} --help lists all options)\n")

    def _unknown_option(self, name: str) -> str:
        if name in self.hints:
            return f"{name}: {self.hints[name]}"
        options = [option for option in self._option_string_actions if option.startswith("--")]
        similar = difflib.get_close_matches(name, options, n=1, cutoff=0.75)
        return f"unknown option {name}" + (f"; did you mean {similar[0]}?" if similar else "")


def run_command(main: Callable[[], None]) -> None:
    """Run a command; an InputError or OSError ends it with its message and status 1; a signal, with 128 + its number.

    The traceback is in the run's log.txt, if there is one, and on the screen with --debug.
    """
    try:
        main()
        return
    except KeyboardInterrupt as error:
        message, status = "interrupted", 128 + getattr(error, "signal", signal.SIGINT)
    except (InputError, OSError) as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        logger.debug("Stopped by an error", exc_info=True)  # to the log file only
        # An error of the system names no remedy, and may be a bug.
        message, status = f"error: {error}" + (" (--debug shows where)" if getattr(error, "errno", None) else ""), 1
    sys.stdout.flush()  # so that the message comes last where both streams go to one place
    print(message, file=sys.stderr)
    sys.exit(status)


def command(name: str, *args: object) -> str:
    """Return the command line of a command, in the form in which this program was started.

    Args:
        name: a key of TOOLS.
        args: its arguments, which are quoted for the shell.
    """
    first, *rest = command_argv(name, *args)
    return shlex.join([python() if first == sys.executable else Path(first).name, *rest])


def command_argv(name: str, *args: object) -> list[str]:
    """Return the arguments with which a process of a command is started; see `command`."""
    script, installed = Path(sys.argv[0] or "."), shutil.which("d2_detr")
    if _is_tool():
        start = [sys.executable, str(script.parent / TOOLS[name])]
    elif installed and script.name not in ("__main__.py", "-m"):
        start = [installed, name]
    else:
        start = [sys.executable, "-m", "d2_detr", name]
    return [*start, *map(str, args)]


def python() -> str:
    """Return how to call this interpreter: `python` if that finds it, else its path."""
    found = shutil.which("python")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "python"
    relative = os.path.relpath(sys.executable)
    return sys.executable if relative.startswith("..") else relative


def announce(version: str) -> None:
    """Print a first line if this process is one of the commands: importing torch takes seconds."""
    is_command = _is_tool() or Path(sys.argv[0]).name == "d2_detr" or sys.argv[:1] == ["-m"]
    is_first = multiprocessing.parent_process() is None and os.environ.get("LOCAL_RANK", "0") == "0"
    if is_command and is_first and not {"-h", "--help"} & set(sys.argv):
        print(f"d2_detr {version}: loading", file=sys.stderr, flush=True)


def _is_tool() -> bool:
    """Return whether this program is a script in tools/ of this clone, not one of the user's with the same name."""
    return Path(sys.argv[0]).resolve().parent == _TOOLS_FOLDER
