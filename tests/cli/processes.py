"""Run commands in separate processes."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
# Imports of the commands that take most of the time of a small run.
LIBRARIES = (
    "fvcore.common.checkpoint", "jinja2", "matplotlib.figure", "pycocotools.cocoeval", "scipy.ndimage",
    "scipy.optimize", "torch.utils.tensorboard", "torchvision",
)  # fmt: skip
forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(list(LIBRARIES))


def start(datasets, tool, *args):
    """Start a tool in a new interpreter; `datasets` is the folder of datasets and downloads."""
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, args)]
    return subprocess.Popen(
        command, env=_environment(datasets), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(datasets, tool, *args):
    """Run a tool to its end; return the exit status and the output.

    Unlike `start`, it forks an interpreter that has imported only LIBRARIES. The tool is a file in tools/ or a command
    of `python -m d2_detr`.
    """
    with tempfile.NamedTemporaryFile("r") as output:
        argv = [str(ROOT / "tools" / tool)] if tool.endswith(".py") else [str(ROOT / "d2_detr/__main__.py"), tool]
        argv += map(str, args)
        process = forking.Process(target=_run_main, args=(argv, _environment(datasets), output.name))
        process.start()
        process.join(TIMEOUT_S)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{tool} takes more than {TIMEOUT_S} s: {output.read()}")
        return process.exitcode, output.read()


def _environment(datasets):
    return os.environ | {
        "DETECTRON2_DATASETS": str(datasets),
        "D2_DETR_CACHE": str(datasets / "cache"),
        "PYTHONPATH": str(ROOT),
    }


def _run_main(argv, environment, output):
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    with open(output, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    runpy.run_path(argv[0], run_name="__main__")
