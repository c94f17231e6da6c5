"""Packaging of d2_detr.

Detectron2 is not a requirement: it is not on the package index and must be compiled against the installed torch. If it
is installed it is used; otherwise `import detectron2` finds the subset that d2_detr carries.
"""

import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def version() -> str:
    """Read the version without importing the package, which needs its requirements."""
    lines = (ROOT / "d2_detr" / "__init__.py").read_text().splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("__version__"))


class BuildWithConfigs(build_py):
    """Puts `configs/`, which is beside the package in a clone, into the package in a wheel."""

    def run(self) -> None:
        """Build, and copy the configs."""
        super().run()
        if not self.editable_mode:
            shutil.copytree(ROOT / "configs", Path(self.build_lib) / "d2_detr" / "configs", dirs_exist_ok=True)


setup(
    name="d2_detr",
    version=version(),
    description="Fine-tune DETR on your own images: a Detectron2 plugin that also runs without Detectron2",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_namespace_packages(include=["d2_detr*"]),
    # The default, but if it is explicit, an editable install is a plain path; otherwise a script beside the clone would
    # take the folder of the clone for the package.
    package_dir={"": "."},
    package_data={"": ["*.json", "*.yaml", "*.md", "*.jinja", "*.css", "*.js"]},
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["d2_detr = d2_detr.cli:main"]},
    # The suite passes with the lower bounds: .github/oldest.txt pins exactly these versions.
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "jinja2>=3.1.2",
        "matplotlib>=3.7.0",
        "numpy>=1.23.2",
        "orjson>=3.8.0",
        "Pillow>=11.3.0",  # older ones do not know AVIF
        "pycocotools>=2.0.7",
        "PyYAML>=6.0.1",
        "safetensors>=0.4.0",
        "scipy>=1.9.2",
        "tabulate>=0.9.0",
        "tensorboard>=2.11.0",
        "termcolor>=2.1.0",
        "tqdm>=4.64.1",
        "typing_extensions>=4.8.0",
        "yacs>=0.1.8",
    ],
    extras_require={
        "test": [
            "hypothesis",
            "ipykernel",  # with nbclient, for the notebooks
            "nbclient",
            "pytest",
            "pytest-xdist[psutil]",  # `make test` distributes the tests over all cores
            "selenium",  # for the report, if there is a browser
            "setuptools>=70.1",  # builds wheels without the wheel package
        ],
        "lint": [
            "bandit[toml]==1.9.4",
            "codespell==2.4.3",
            "import-linter==2.17",
            "mypy==2.4.1",
            "pip-audit==2.10.1",
            "ruff==0.17.5",
            "types-PyYAML",
            "types-tabulate",
            "types-tqdm",
        ],
        "benchmark": ["transformers>=5.23", "timm>=1.0"],  # what `d2_detr benchmark` compares with
        "record": ["transformers==5.23.0", "timm==1.0.31"],  # to record the figures in tests/reference again
    },
)
