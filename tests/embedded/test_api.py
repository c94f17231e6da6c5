"""API.md lists what the embedded detectron2 offers; each name exists, at the same place, with the same arguments.

The real Detectron2 is compared with the source of the embedded one, because only one of them can be imported.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import detectron2

EMBEDDED = Path(__file__).parents[2] / "d2_detr/_embedded"
ROWS = re.findall(r"^\| `(detectron2[\w.]*)` \| `(\w+)` \| (.+) \|$", (EMBEDDED / "API.md").read_text(), re.MULTILINE)
IS_REAL = "embedded" not in detectron2.__version__
NAMES = [(module, name) for module, name, caller in ROWS if not (IS_REAL and caller.startswith("only here"))]


def ids(names):
    return [f"{module}.{name}" for module, name in names]


@pytest.mark.parametrize("module, name", NAMES, ids=ids(NAMES))
def test_listed_name_exists(module, name):
    assert hasattr(importlib.import_module(module), name)


def test_every_exported_name_is_listed_with_a_caller():
    assert len(ROWS) > 100
    assert all(caller.strip() for *_, caller in ROWS)
    listed = {name for _, name, _ in ROWS}
    for file in EMBEDDED.rglob("*.py"):
        exported = re.search(r"^__all__ = (\[.*?\])", file.read_text(), re.MULTILINE | re.DOTALL)
        assert set(ast.literal_eval(exported[1]) if exported else []) <= listed, file


def test_every_public_definition_is_listed():
    listed = {(module, name) for module, name, _ in ROWS}
    for file in (EMBEDDED / "detectron2").rglob("*.py"):
        if file.stem == "_missing":
            continue
        module = ".".join(file.relative_to(EMBEDDED).with_suffix("").parts).removesuffix(".__init__")
        packages = {module.rsplit(".", depth)[0] for depth in range(module.count(".") + 1)}
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert any((package, node.name) in listed for package in packages), f"{module}.{node.name}"


def definitions(module, name):
    """The functions and classes `name` in the embedded source of `module` or, for a package, of its files."""
    path = EMBEDDED.joinpath(*module.split("."))
    for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                yield node


def public_functions(node, real):
    """(name, embedded definition, real function) of a function, or of a class's constructor and public methods."""
    if isinstance(node, ast.FunctionDef):
        yield node.name, node, real
        return
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and (method.name == "__init__" or not method.name.startswith("_")):
            yield f"{node.name}.{method.name}", method, getattr(real, method.name)


def arguments(function):
    """[(name, default)] of a definition; the default is a literal or `...`."""

    def literal(node):
        try:
            return ast.literal_eval(node)
        except ValueError:
            return ...

    args = function.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [inspect.Parameter.empty] * (len(positional) - len(args.defaults)) + [*map(literal, args.defaults)]
    keywords = [inspect.Parameter.empty if node is None else literal(node) for node in args.kw_defaults]
    return list(zip([a.arg for a in positional + args.kwonlyargs], defaults + keywords, strict=True))


SIGNATURES = [(module, name) for module, name in NAMES if IS_REAL and any(definitions(module, name))]


@pytest.mark.parametrize("module, name", SIGNATURES, ids=ids(SIGNATURES))
def test_arguments_are_those_of_the_real_one(module, name):
    for node in definitions(module, name):
        for label, embedded, real in public_functions(node, getattr(importlib.import_module(module), name)):
            if not callable(real):  # a property
                continue
            parameters = inspect.signature(real).parameters
            takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            for argument, default in arguments(embedded):
                if argument in {"self", "cls"} or (takes_any and argument not in parameters):
                    continue
                assert argument in parameters, f"{label} has no argument {argument!r}"
                if default is not ...:
                    assert parameters[argument].default == default, f"{label}: default of {argument!r}"
