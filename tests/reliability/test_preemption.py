"""A training that is asked to stop saves itself, and processes of a group end together."""

import os
import re
import signal
import time

import psutil
import pytest
import torch

from d2_detr.checkpoint.resume import has_checkpoint, newest_checkpoint
from tests.reliability.runs import assert_same, end, finish, kill, outcome, start

TWO = ("--num-gpus", "2")
# A training that would take an hour, with steps that all processes do together.
LONG = ("SOLVER.MAX_ITER", "100000", "SOLVER.STEPS", "()", "SOLVER.IMS_PER_BATCH", "4", "TEST.EVAL_PERIOD", "0")
SLOW_EVALUATION = """
import time, d2_detr.engine.trainer as trainer
evaluate = trainer.evaluate_model
def evaluate_slowly(cfg, *args, **options):
    if not os.path.exists(cfg.OUTPUT_DIR + "/evaluated"):
        open(cfg.OUTPUT_DIR + "/evaluated", "w"), time.sleep(100)
    return evaluate(cfg, *args, **options)
trainer.evaluate_model = evaluate_slowly
"""

SLOW_STEP = """
import time
from d2_detr.engine.trainer import Trainer
def run_step(self):
    open(self.cfg.OUTPUT_DIR + "/slow", "w")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.1)
Trainer.run_step = run_step
"""


@pytest.fixture(scope="module")
def uninterrupted(drawn_balloons, tmp_path_factory):
    """The outcome of a training that was not interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(start(folder))
    return outcome(folder)


def wait_for_steps(process, folder):
    """Wait until a training has saved its first checkpoint."""
    while not has_checkpoint(folder):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_signal_saves_the_training_and_says_how_to_continue(drawn_balloons, tmp_path, number, status):
    process = start(tmp_path, *LONG, "DATALOADER.NUM_WORKERS", "1")
    wait_for_steps(process, tmp_path)
    os.killpg(process.pid, number)  # workers included, as schedulers do
    output = end(process, 30)
    assert process.returncode == status, output
    assert f"Received {number.name}: finishing this iteration" in output and "Traceback" not in output
    assert f"-m d2_detr finetune --continue --output {tmp_path}\n" in output
    iteration = torch.load(tmp_path / "model_last.pth", weights_only=True)["iteration"]
    assert f"; {iteration + 1} of 100000 iterations are saved. To continue: " in output


def test_preempted_training_ends_like_one_that_was_not(uninterrupted, tmp_path):
    process = start(tmp_path)
    wait_for_steps(process, tmp_path)
    process.terminate()
    end(process, 30)
    assert process.returncode == 143
    finish(start(tmp_path, resume=True))
    assert_same(uninterrupted, outcome(tmp_path))


def test_evaluation_ends_at_once_and_is_repeated(uninterrupted, tmp_path):
    process = start(tmp_path, before="import os\n" + SLOW_EVALUATION)
    while not (tmp_path / "evaluated").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.terminate()
    end(process, 15)
    assert process.returncode == 143
    assert_same(uninterrupted, finish(start(tmp_path, resume=True)) and outcome(tmp_path))


def test_second_signal_ends_the_training_at_once(drawn_balloons, tmp_path):
    process = start(tmp_path, *LONG, before=SLOW_STEP)
    while not (tmp_path / "slow").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.terminate()
    time.sleep(0.2)
    process.terminate()  # many senders signal a process and its group: this counts as the first one
    time.sleep(1.2)
    assert process.poll() is None
    process.terminate()
    end(process, 5)
    assert process.returncode == -signal.SIGTERM


def test_all_processes_stop_after_the_same_iteration(drawn_balloons, tmp_path):
    process = start(tmp_path, *TWO, *LONG)
    wait_for_steps(process, tmp_path)
    process.terminate()  # only the process that the user sees
    output = end(process, 40)
    assert process.returncode == 143, output
    assert output.count("Received SIGTERM") == 1 and output.count("To continue: ") == 1
    assert "--num-gpus 2" in output and "Traceback" not in output


@pytest.mark.parametrize("num_processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_process_ends_the_others_with_the_cause(drawn_balloons, tmp_path, num_processes):
    process = start(tmp_path, "--num-gpus", str(num_processes), *LONG)
    wait_for_steps(process, tmp_path)
    time.sleep(1)
    rank_one(process).kill()
    output = end(process, 60)
    assert process.returncode == 1
    assert f"error: process 1 of {num_processes} was killed by SIGKILL. The system does this if it runs out" in output
    assert "Traceback" not in output
    [failed] = re.findall(r"lost in iteration (\d+)", output)
    last_complete = (int(failed) - 1, int(failed))  # the latter if the connection was lost after the step
    assert newest_checkpoint(tmp_path).extra["iteration"] in last_complete


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 4])
def test_frozen_process_ends_the_others_within_a_minute(drawn_balloons, tmp_path, num_processes):
    process = start(tmp_path, "--num-gpus", str(num_processes), *LONG)
    wait_for_steps(process, tmp_path)
    rank_one(process).suspend()
    output = end(process, 60)
    assert process.returncode == 1
    assert f"error: process 1 of {num_processes} has not responded for 35 seconds" in output


def rank_one(process):
    """Return the second process of a group."""
    ranks = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    return sorted(ranks, key=lambda child: child.pid)[1]


def test_second_training_in_a_folder_is_refused(drawn_balloons, tmp_path):
    process = start(tmp_path, *LONG)
    while not (tmp_path / ".lock").exists() or not (tmp_path / ".lock").read_text():
        time.sleep(0.05)
    second = start(tmp_path, *LONG, resume=True)
    output = end(second, 60)
    kill(process)
    assert second.returncode == 1
    assert f"error: {tmp_path} is in use by process {process.pid} on " in output and "--output" in output
