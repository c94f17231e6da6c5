"""Which detectron2 is imported: an installed one takes precedence, a bare clone is ignored."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Settles which detectron2 is used, and prints its version and path.
SETTLE = (
    "import sys, logging; logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout);"
    "from d2_detr._runtime import settle_detectron2; settle_detectron2();"
    "import detectron2; print(detectron2.__version__, detectron2.__file__)"
)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A bare interpreter, and a folder with only `d2_detr._runtime` and a stand-in for the embedded subset."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    (folder / "alone" / "d2_detr").mkdir(parents=True)
    runtime = (ROOT / "d2_detr" / "_runtime.py").read_text()
    (folder / "alone" / "d2_detr" / "_runtime.py").write_text(runtime)
    (folder / "alone" / "d2_detr" / "_embedded" / "detectron2").mkdir(parents=True)
    (folder / "alone" / "d2_detr" / "_embedded" / "detectron2" / "__init__.py").write_text("__version__ = 'embedded'")
    return folder / "bin" / "python"


def site_packages(python):
    return next((python.parents[1] / "lib").glob("python*/site-packages"))


def imported_detectron2(python, folder):
    environment = {"PYTHONPATH": str(python.parents[1] / "alone"), "PATH": os.environ["PATH"]}
    result = subprocess.run(
        [python, "-c", SETTLE], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout.strip().splitlines()


def clone(folder):
    """Create a clone of Detectron2's repository: the package is one level below."""
    (folder / "detectron2" / "detectron2").mkdir(parents=True)
    (folder / "detectron2" / "setup.py").touch()
    (folder / "detectron2" / "detectron2" / "__init__.py").write_text("__version__ = 'clone'")
    return folder / "detectron2"


def test_embedded_subset_is_the_default_and_is_logged(python, tmp_path):
    logged, imported = imported_detectron2(python, tmp_path)
    assert imported.startswith("embedded ") and logged.startswith("detectron2 embedded from ")


@pytest.mark.parametrize(
    ("given", "count"),
    [({}, "10000"), ({"OMP_WAIT_POLICY": "active"}, "None"), ({"GOMP_SPINCOUNT": "100"}, "100")],
    ids=["unset", "policy", "count"],
)
def test_threads_spin_briefly_unless_a_variable_says_otherwise(python, tmp_path, given, count):
    code = "import os; from d2_detr._runtime import limit_spinning as f; f(); print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {"PYTHONPATH": str(python.parents[1] / "alone"), **given}
    result = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == count


def test_importing_the_package_limits_spinning():
    code = "import os, d2_detr; print(os.environ['GOMP_SPINCOUNT'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("GOMP_SPINCOUNT", None)  # which this process has set, too
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "10000"


def test_bare_clone_in_the_working_folder_is_ignored(python, tmp_path):
    clone(tmp_path)
    assert imported_detectron2(python, tmp_path)[-1].startswith("embedded ")


def test_installed_wheel_wins_over_a_clone(python, tmp_path):
    package = site_packages(python) / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = 'wheel'")
    clone(tmp_path)
    try:
        assert imported_detectron2(python, tmp_path)[-1].startswith("wheel ")
    finally:
        shutil.rmtree(package)


@pytest.mark.parametrize("way", ["path", "finder"])
def test_editable_install_works_in_the_parent_of_its_clone(python, tmp_path, way):
    """setuptools adds the clone to the path, or a finder that maps the name to it."""
    root = clone(tmp_path)
    pth = site_packages(python) / "detectron2_editable.pth"
    finder = site_packages(python) / "detectron2_editable_finder.py"
    if way == "path":
        pth.write_text(f"{root}\n")
    else:
        finder.write_text(
            "import sys, importlib.util\n"
            "class Finder:\n"
            "    @classmethod\n"
            "    def find_spec(cls, name, path=None, target=None):\n"
            "        if name == 'detectron2':\n"
            f"            path = {str(root / 'detectron2' / '__init__.py')!r}\n"
            "            return importlib.util.spec_from_file_location(name, path)\n"
            "sys.meta_path.insert(0, Finder)\n"
        )
        pth.write_text("import detectron2_editable_finder\n")
    try:
        assert imported_detectron2(python, tmp_path)[-1].startswith("clone ")
    finally:
        pth.unlink()
        finder.unlink(missing_ok=True)


def test_wheel_has_configs_and_embedded_subset_and_trains(drawn_balloons, tmp_path):
    """The wheel is built, unpacked outside the clone, and run without the clone on the path."""
    source = tmp_path / "source"  # a build creates folders beside the source
    for name in ("d2_detr", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-W", "ignore", "-m", "pip"]  # what pip itself uses does not matter
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    built = subprocess.run([*build, str(source)], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        packed.extractall(tmp_path / "site")
    for name in (
        "d2_detr/configs/detr_256_6_6_torchvision.yaml", "d2_detr/configs/custom/detr_r50_custom.yaml",
        "d2_detr/_embedded/detectron2/__init__.py", "d2_detr/_embedded/API.md",
        "d2_detr/data/datasets/balloon_manifest.json", "d2_detr/report/report.html.jinja",
        "d2_detr/report/report.css", "d2_detr/report/report.js",
    ):  # fmt: skip
        assert name in names
    assert not any(name.startswith(("tests/", "tools/", "detectron2/")) for name in names)
    script = (
        "import d2_detr;"
        "from d2_detr.config import load_config; from d2_detr.workflows.train import train;"
        "opts = 'SOLVER.MAX_ITER 2 SOLVER.STEPS () MODEL.DETR.HIDDEN_DIM 32 MODEL.DETR.NHEADS 4 MODEL.DEVICE cpu "
        "SOLVER.IMS_PER_BATCH 2 DATALOADER.NUM_WORKERS 0 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64'.split();"
        "train(load_config('detr_compact_balloon_drawn.yaml', opts)); print(d2_detr.__file__)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(tmp_path / "site"), "DETECTRON2_DATASETS": str(drawn_balloons.parent)}
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.strip().splitlines()[-1].startswith(str(tmp_path / "site")), "not the clone"
    assert {"model_final.pth", "report.html"} <= {path.name for path in (tmp_path / "output").iterdir()}
    assert "Evaluation at iteration 2, epoch" in run.stdout
