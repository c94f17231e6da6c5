"""Reading config files: YAML with `_BASE_`, as settings that know their line.

Detectron2 reads them with PyYAML alone, which takes the last of two sections with the same name, follows `_BASE_` in
circles, and expands anchors to any size. Here a file can cost no more than its limits allow, and every mistake has its
line.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from d2_detr.utils.errors import InputError, error_context

BASE = "_BASE_"
MAX_BYTES = 1 << 18  # a config with all keys has 10 KB
MAX_VALUES = 10_000  # of a file, after its anchors are expanded
MAX_FILES = 50  # a config and all its bases
MAX_NUMBER_LENGTH = 100  # characters

_TAG = "tag:yaml.org,2002:"
_TAGS = {_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
_TEXT_AS_DATE = {_TAG + "timestamp", _TAG + "value"}  # such as OUTPUT_DIR: 2026-05-01


class Setting(NamedTuple):
    """A value for a config key."""

    key: str  # such as SOLVER.MAX_ITER
    value: object
    place: str = ""  # such as "my.yaml, line 3"


def read_config(path: Path) -> list[Setting]:
    """Read a config file and its bases, whose settings come first.

    Raises:
        InputError: not a config; the message has file and line.
    """
    return _read(path, (), [])


def _read(path: Path, derived: tuple[Path, ...], files: list[Path]) -> list[Setting]:
    """Read a file that is a base of `derived`; `files` collects all files."""
    resolved = path.resolve()
    if resolved in derived:
        raise InputError(f"{path}: {BASE} leads back to this file; remove it from one of the files")
    files.append(resolved)
    if len(files) > MAX_FILES:
        raise InputError(f"{path}: one of more than {MAX_FILES} files that {BASE} names; use fewer")
    own = _parse(path)
    inherited: list[Setting] = []
    for setting in own:
        if setting.key == BASE:
            for base in _base_paths(setting, path.parent):
                inherited += _read(base, (*derived, resolved), files)
    return inherited + [setting for setting in own if setting.key != BASE]


def _base_paths(setting: Setting, folder: Path) -> list[Path]:
    names = setting.value if isinstance(setting.value, list) else [setting.value]
    paths = []
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"{setting.place}: {BASE}: expected the path of a config file")
        if "://" in name:
            raise InputError(f"{setting.place}: {BASE} {name}: an address; download the file and give its path")
        path = folder / os.path.expanduser(name)
        if not os.path.isfile(path):
            raise InputError(f"{setting.place}: {BASE} {name}: no such file; the path is relative to this config")
        paths.append(path)
    return paths


def _parse(path: Path) -> list[Setting]:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES >> 10} KB; expected a config file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place(path, content.count(b"\n", 0, error.start))
        raise InputError(f"{place}: not UTF-8 text; save the file as UTF-8") from error
    try:
        return list(_settings(text, path))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else 0
        raise InputError(f"{_place(path, line)}: not valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        place = _place(path, text.count("\n", 0, error.position))
        raise InputError(f"{place}: not text: it has the character {error.character!r}") from error
    except RecursionError as error:
        raise InputError(f"{path}: too deeply nested for a config") from error


def _settings(text: str, path: Path) -> Iterator[Setting]:
    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    if root is None:
        raise InputError(f"{path}: empty; expected sections such as SOLVER:")
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{_place(path, root.start_mark.line)}: expected sections such as SOLVER:")
    if _expanded_size(root, {}) > MAX_VALUES:
        raise InputError(f"{path}: more than {MAX_VALUES} values once its anchors (&, *) are expanded")
    yield from _section(loader, root, "", path)


def _section(loader: yaml.SafeLoader, node: yaml.MappingNode, prefix: str, path: Path) -> Iterator[Setting]:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        place = _place(path, key_node.start_mark.line)
        if not isinstance(key_node, yaml.ScalarNode):
            raise InputError(f"{place}: expected the name of a config key")
        name = key_node.value
        if seen.setdefault(name, key_node.start_mark.line) != key_node.start_mark.line:
            raise InputError(f"{place}: {prefix}{name} is already in line {seen[name] + 1}; keep one of them")
    loader.flatten_mapping(node)  # the mappings of <<
    for key_node, value_node in node.value:
        key, place = f"{prefix}{key_node.value}", _place(path, key_node.start_mark.line)
        if isinstance(value_node, yaml.MappingNode):
            yield from _section(loader, value_node, f"{key}.", path)
        else:
            with error_context(f"{place}: {key}"):
                _check_scalars(value_node)
                value = _construct(loader, value_node)
            yield Setting(key, value, place)


def _construct(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, LookupError) as error:  # a tag such as !!int before another value
        raise InputError("the value does not match its tag (!!); remove the tag") from error


def _check_scalars(node: yaml.Node) -> None:
    """Refuse values that no config has, or that PyYAML would need too long for."""
    for child in _children(node):
        _check_scalars(child)
    if node.tag in _TEXT_AS_DATE:
        node.tag = f"{_TAG}str"
    if node.tag not in _TAGS:
        raise InputError(f"the tag {node.tag.replace(_TAG, '!!')} is not allowed in a config; remove it")
    if node.tag in (f"{_TAG}int", f"{_TAG}float") and len(node.value) > MAX_NUMBER_LENGTH:
        raise InputError("the number is too long")


def _expanded_size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Return the number of values of a node; one that contains itself has infinitely many.

    Args:
        sizes: of the nodes that are known, by their id.
    """
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in _children(node))
    return sizes[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _place(path: Path, line: int) -> str:
    """Return how a message names a line, counted from 0."""
    return f"{path}, line {line + 1}"
