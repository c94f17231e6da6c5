"""A tool as a process of its own."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 120  # that a tool may take
# What the tools import of others, which is most of the time that a small run takes.
LIBRARIES = (
    "fvcore.common.checkpoint", "jinja2", "matplotlib.figure", "pycocotools.cocoeval", "scipy.ndimage",
    "scipy.optimize", "torch.utils.tensorboard", "torchvision",
)  # fmt: skip
forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(list(LIBRARIES))


def start(datasets, tool, *args):
    """In a new interpreter, with `datasets` as the folder of datasets, and of what is downloaded."""
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, args)]
    return subprocess.Popen(
        command, env=_environment(datasets), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(datasets, tool, *args):
    """Exit status, and all that it wrote.

    Where `start` has a new interpreter, this has a fork of one that imported LIBRARIES, and nothing else.
    """
    with tempfile.NamedTemporaryFile("r") as output:
        argv = [str(ROOT / "tools" / tool), *map(str, args)]
        process = forking.Process(target=_become, args=(argv, _environment(datasets), output.name))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{tool} takes more than {SECONDS} s: {output.read()}")
        return process.exitcode, output.read()


def _environment(datasets):
    return os.environ | {
        "DETECTRON2_DATASETS": str(datasets),
        "D2_DETR_CACHE": str(datasets / "cache"),
        "PYTHONPATH": str(ROOT),
    }


def _become(argv, environment, output):
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    with open(output, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    runpy.run_path(argv[0], run_name="__main__")
