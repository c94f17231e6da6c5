"""Packaging of d2_detr.

Detectron2 is not required here: it is not on the package index and must be compiled against the torch that is
installed. Where it is installed it is used; else the subset that d2_detr carries answers `import detectron2`.
"""

import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def version() -> str:
    lines = (ROOT / "d2_detr" / "__init__.py").read_text().splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("__version__"))


class BuildWithConfigs(build_py):
    """`configs/` stands beside the package in a checkout and goes into it in a wheel."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(ROOT / "configs", Path(self.build_lib) / "d2_detr" / "configs", dirs_exist_ok=True)


setup(
    name="d2_detr",
    version=version(),
    description="Fine-tune DETR on your own pictures: a Detectron2 plugin that also runs without Detectron2",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_namespace_packages(include=["d2_detr*"]),
    # Said though it is the default: an editable install is then a mere path, and a script beside the checkout does not
    # take the folder of the checkout for the package.
    package_dir={"": "."},
    package_data={"": ["*.json", "*.yaml", "*.md", "*.jinja", "*.css", "*.js"]},
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "fvcore",
        "iopath",
        "jinja2",
        "matplotlib",
        "numpy",
        "Pillow",
        "pycocotools",
        "PyYAML",
        "safetensors",
        "scipy",
        "tabulate",
        "tensorboard",
        "termcolor",
        "tqdm",
        "yacs",
    ],
    extras_require={
        "test": [
            "hypothesis",
            "ipykernel",  # with nbclient, for the notebooks
            "nbclient",
            "pytest",
            "pytest-xdist[psutil]",  # `make test` shares the tests out to all cores
            "ruff==0.17.5",
            "selenium",  # for the report, where there is a browser
            "setuptools>=70.1",  # which builds wheels by itself
        ],
        "record": ["transformers==5.23.0", "timm==1.0.31"],  # to record figures of tests/reference anew
    },
)
