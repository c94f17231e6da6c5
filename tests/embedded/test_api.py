"""The embedded detectron2 defines the names in API.md, with Detectron2's arguments.

The real Detectron2 is compared with the source of the embedded one because only one of them can be imported.
`python -m tests.embedded.test_api` updates the callers in API.md.
"""

import ast
import functools
import importlib
import inspect
import re
from collections import defaultdict
from pathlib import Path

import pytest

import d2_detr  # noqa: F401  (selects the detectron2 to import)

import detectron2

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "d2_detr/_embedded"
API = EMBEDDED / "API.md"
ROW = re.compile(r"^\| `(detectron2[\w.]*)` \| `(\w+)` \| (only here: )?(.+) \|$", re.MULTILINE)
ROWS = ROW.findall(API.read_text())
IS_REAL = "embedded" not in detectron2.__version__
NAMES = [(module, name) for module, name, only_here, _ in ROWS if not (IS_REAL and only_here)]


def ids(names):
    return [f"{module}.{name}" for module, name in names]


def module_name(file: Path) -> str:
    """Return the name of an embedded module."""
    return ".".join(file.relative_to(EMBEDDED).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("module, name", NAMES, ids=ids(NAMES))
def test_listed_name_exists(module, name):
    assert hasattr(importlib.import_module(module), name)


def test_every_exported_name_is_listed_with_a_caller():
    assert len(ROWS) > 100
    assert all(caller.strip() for *_, caller in ROWS)
    listed = {name for _, name, *_ in ROWS}
    for file in EMBEDDED.rglob("*.py"):
        for exported in re.findall(r"^__all__ \+?= (\[.*?\])", file.read_text(), re.MULTILINE | re.DOTALL):
            assert set(ast.literal_eval(exported)) <= listed, file


def test_every_public_definition_is_listed():
    listed = {(module, name) for module, name, *_ in ROWS}
    for file in (EMBEDDED / "detectron2").rglob("*.py"):
        if file.stem == "_missing":
            continue
        module = module_name(file)
        packages = {module.rsplit(".", depth)[0] for depth in range(module.count(".") + 1)}
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert any((package, node.name) in listed for package in packages), f"{module}.{node.name}"


@functools.cache
def used_names(file: Path) -> dict[str, set[str]]:
    """Return {name: modules from which a file imports it}.

    This covers imports, attributes of imports and, in embedded modules, uses of their own names.
    """
    tree = ast.parse(file.read_text())
    own = module_name(file) if file.is_relative_to(EMBEDDED) else ""
    package = own.split(".") if file.stem == "__init__" else own.split(".")[:-1]
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                imported[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and not (node.level == 1 and file.stem == "__init__"):  # no re-exports
            parents = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*parents, *filter(None, [node.module])])
            imported |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}

    def dotted(node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            return f"{dotted(node.value)}.{node.attr}"
        return imported.get(node.id, f"{own}.{node.id}") if isinstance(node, ast.Name) else ""

    used = defaultdict(set)
    loaded = [
        dotted(node)
        for statement in tree.body
        for node in ast.walk(statement)
        if isinstance(getattr(node, "ctx", None), ast.Load)
        and getattr(node, "id", "") != getattr(statement, "name", None)  # no recursion
    ]
    for source, _, name in (full_name.rpartition(".") for full_name in [*imported.values(), *loaded]):
        used[name].add(source)
    return used


def callers(module: str, name: str) -> str:
    """Return the first file that uses a name, and the number of others.

    Files of the embedded package count only if the plugin does not use the name.
    """

    def uses(file: Path) -> bool:
        pairs = [pair for source in used_names(file).get(name, ()) for pair in ((source, module), (module, source))]
        return any(f"{inner}.".startswith(f"{outer}.") for inner, outer in pairs)

    embedded = sorted((EMBEDDED / "detectron2").rglob("*.py"))
    plugin = sorted({*ROOT.glob("d2_detr/**/*.py"), *ROOT.glob("tools/*.py")} - {*embedded})
    for label, files, root in (("", plugin, ROOT), ("embedded ", embedded, EMBEDDED / "detectron2")):
        if users := [file.relative_to(root).as_posix() for file in files if uses(file)]:
            others = f" and {len(users) - 1} other{'s' if len(users) > 2 else ''}" if len(users) > 1 else ""
            return f"{label}{users[0]}{others}"
    return "training scripts"


def with_callers(text: str) -> str:
    """Return the text of API.md with up-to-date callers."""
    return ROW.sub(lambda row: f"| `{row[1]}` | `{row[2]}` | {row[3] or ''}{callers(row[1], row[2])} |", text)


def test_listed_callers_match_the_code():
    assert API.read_text() == with_callers(API.read_text()), "run `python -m tests.embedded.test_api`"


@pytest.mark.parametrize(
    "code, module, name",
    [
        ("from detectron2.data import transforms as T; T.RandomFlip()", "detectron2.data.transforms", "RandomFlip"),
        ("import detectron2; detectron2.__version__", "detectron2", "__version__"),
        ("import detectron2.utils.comm as c; c.get_rank()", "detectron2.utils.comm", "get_rank"),
        ("def f(): from detectron2.structures import Boxes as B", "detectron2.structures", "Boxes"),
    ],
    ids=["module", "package", "alias", "local"],
)
def test_callers_are_detected_for_every_kind_of_import(code, module, name, tmp_path):
    (tmp_path / "caller.py").write_text(code)
    assert module in used_names(tmp_path / "caller.py")[name]


def definitions(module, name):
    """Yield the embedded definitions of `name` in a module or a package's files."""
    path = EMBEDDED.joinpath(*module.split("."))
    for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                yield node


def public_functions(node, real):
    """Yield (name, embedded definition, real one) of a function or of public methods."""
    if isinstance(node, ast.FunctionDef):
        yield node.name, node, real
        return
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and (method.name == "__init__" or not method.name.startswith("_")):
            yield f"{node.name}.{method.name}", method, getattr(real, method.name)


def arguments(function):
    """Return [(name, default)]; a default that is not a literal is `...`."""

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
def test_arguments_and_defaults_are_those_of_detectron2(module, name):
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


if __name__ == "__main__":
    API.write_text(with_callers(API.read_text()))
