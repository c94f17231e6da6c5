"""Progress of a training in the terminal and in the log file."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from tests.cli.processes import ROOT


@pytest.fixture
def terminal_run(drawn_balloons, tiny_opts, tmp_path):
    """Terminal output and output folder of a training of 20 iterations."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"DETECTRON2_DATASETS": str(drawn_balloons.parent), "PYTHONPATH": str(ROOT)}
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))  # rows, columns
    opts = ["SOLVER.MAX_ITER", "20", "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", "10", "SOLVER.CHECKPOINT_PERIOD", "100"]
    command = [sys.executable, str(ROOT / "tools/train_net.py"), "--config", "detr_compact_balloon_drawn.yaml"]
    with subprocess.Popen([*command, *tiny_opts, *opts], env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        output = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    assert process.returncode == 0, output.decode()
    return output.decode(), tmp_path


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux reports that the other side is closed
        return b""


def test_progress_bar_shows_time_left_losses_and_ap(terminal_run):
    output, folder = terminal_run
    states = [line for line in re.split(r"[\r\n]+", output) if "/20 [" in line]
    assert len(states) > 3 and re.search(r"20/20 \[\d\d:\d\d<00:00", states[-1])
    assert re.search(r", AP [\d.]+, loss [\d.]+, val loss [\d.]+, class_error \d+, epoch 10.0\]", states[-1])
    assert "total_loss" not in "".join(line for line in output.splitlines() if "iter 20/20" in line)

    log = (folder / "log.txt").read_text()
    assert re.search(r"iter 20/20  total_loss [\d.]+ .*lr", log), "plain lines in the file"
    assert "/20 [" not in log and "\r" not in log


def test_log_lines_do_not_disturb_the_progress_bar(terminal_run):
    output, _ = terminal_run
    assert re.search(r"\] Evaluation at iteration 20, epoch 10: AP \S+  AP50 [^\r\n]*cardinality_error [\d.]+", output)
    assert "Logging error" not in output and "Traceback" not in output
