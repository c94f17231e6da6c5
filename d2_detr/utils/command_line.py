"""How the tools read their command lines."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import NoReturn


class ToolParser(argparse.ArgumentParser):
    """Mistakes are one line; for an option that does not exist it has the one that was meant, or an answer."""

    def __init__(self, doc: str, answers: Mapping[str, str] | None = None):
        """
        Args:
            doc: what the tool does, for --help.
            answers: by options that do not exist here, what to do instead.
        """
        # Without abbreviations: a later option would make them mean something else.
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        self.answers = answers or {}

    def parse_args(self, args: Sequence[str] | None = None, namespace: None = None) -> argparse.Namespace:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._answer(unknown[0].partition("=")[0]))
        return parsed

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help has all options)\n")

    def _answer(self, option: str) -> str:
        if not option.startswith("-"):
            return f"{option}: nothing is expected there"
        if option in self.answers:
            return f"{option}: {self.answers[option]}"
        options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        near = difflib.get_close_matches(option, options, n=1, cutoff=0.8)
        return f"there is no option {option}{f'; is {near[0]} meant?' if near else ''}"
