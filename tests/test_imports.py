"""Import rules, verified on the import statements."""

import ast
import subprocess
import sys
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
def test_utilities_and_formats_do_not_import_detectron2(path):
    if path.relative_to(PACKAGE).as_posix().startswith(WITHOUT_DETECTRON2):
        assert not any(name.split(".")[0] == "detectron2" for name in imported(path))


@pytest.mark.parametrize("path", [*SOURCES, *sorted((PACKAGE.parent / "tools").glob("*.py"))], ids=lambda p: p.name)
def test_model_zoo_is_never_imported(path):
    assert not any(name.startswith("detectron2.model_zoo") for name in imported(path))


def test_embedded_subset_does_not_import_the_plugin():
    for path in (PACKAGE / "_embedded").rglob("*.py"):
        assert not any(name.split(".")[0] == "d2_detr" for name in imported(path)), path


@pytest.mark.parametrize("code", ["import d2_detr", "from d2_detr import Predictor"])
def test_import_loads_neither_matplotlib_nor_jinja(code):
    names = "('matplotlib', 'jinja2')"
    process = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print([name for name in {names} if name in sys.modules])"],
        capture_output=True, cwd=PACKAGE.parent, text=True,
    )  # fmt: skip
    assert process.stdout.strip().endswith("[]"), process.stdout + process.stderr
