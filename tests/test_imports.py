"""What may import what, read from the import statements."""

import ast
from pathlib import Path

import pytest

import d2_detr

PACKAGE = Path(d2_detr.__file__).parent
SOURCES = [p for p in sorted(PACKAGE.rglob("*.py")) if "_embedded" not in p.parts]
WITHOUT_DETECTRON2 = ("utils/", "data/formats/via", "data/images.py", "data/datasets/synthetic.py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_utilities_and_plain_formats_do_without_detectron2(path):
    if path.relative_to(PACKAGE).as_posix().startswith(WITHOUT_DETECTRON2):
        assert not any(name.split(".")[0] == "detectron2" for name in imported(path))


@pytest.mark.parametrize("path", [*SOURCES, *sorted((PACKAGE.parent / "tools").glob("*.py"))], ids=lambda p: p.name)
def test_model_zoo_is_never_imported(path):
    assert not any(name.startswith("detectron2.model_zoo") for name in imported(path))


def test_the_embedded_part_knows_nothing_of_the_plugin():
    for path in (PACKAGE / "_embedded").rglob("*.py"):
        assert not any(name.split(".")[0] == "d2_detr" for name in imported(path)), path
