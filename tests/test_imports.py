"""What may import what, read from the import statements."""

import ast
from pathlib import Path

import pytest

import d2_detr

PACKAGE = Path(d2_detr.__file__).parent
PLUGIN = ("modeling/detr.py", "modeling/backbone.py", "checkpoint/checkpointer.py", "_runtime.py")
SOURCES = [p for p in sorted(PACKAGE.rglob("*.py")) if "_embedded" not in p.parts]
PLAIN_DATA = ("data/via.py", "data/via_shapes.py", "data/pictures.py", "data/synthetic.py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def may_use_detectron2(path: Path) -> bool:
    name = path.relative_to(PACKAGE).as_posix()
    return name in PLUGIN or (name.startswith(("data/", "engine/", "evaluation/")) and name not in PLAIN_DATA)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_plugin_s_edge_imports_detectron2(path):
    uses = any(name.split(".")[0] == "detectron2" for name in imported(path))
    assert may_use_detectron2(path) or not uses


@pytest.mark.parametrize("path", [*SOURCES, *sorted((PACKAGE.parent / "tools").glob("*.py"))], ids=lambda p: p.name)
def test_model_zoo_is_never_imported(path):
    assert not any(name.startswith("detectron2.model_zoo") for name in imported(path))


def test_the_embedded_part_knows_nothing_of_the_plugin():
    for path in (PACKAGE / "_embedded").rglob("*.py"):
        assert not any(name.split(".")[0] == "d2_detr" for name in imported(path)), path
