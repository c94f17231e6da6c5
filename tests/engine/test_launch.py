"""Training and evaluation in several processes is that of one, and failures end it."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from d2_detr.engine.distributed import _free_port, launch
from d2_detr.utils.errors import InputError
from tests import shapes
from tests.engine import processes

ROOT = Path(__file__).parents[2]
# Without what is drawn or normalised by each process on its own.
SAME_FOR_ALL = (
    "INPUT.RANDOM_FLIP none MODEL.RESNETS.NORM FrozenBN SOLVER.IMS_PER_BATCH 8 SOLVER.MAX_ITER 4 SOLVER.STEPS () "
    "SOLVER.CHECKPOINT_PERIOD 100 TEST.EVAL_PERIOD 0 DATASETS.TEST () MODEL.DETR.NUM_CLASSES 1"
).split()


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(main, num_processes, folder, *args):
    """What each rank wrote."""
    folder.mkdir()
    launch(main, num_processes=num_processes, device="cpu", args=(*args, folder))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(num_processes)]


def test_several_processes_train_as_one_with_the_same_batch(drawn_balloons, tiny_opts, tmp_path):
    alone, two, four = (
        run(processes.train, number, tmp_path / f"of{number}", [*tiny_opts, *SAME_FOR_ALL]) for number in (1, 2, 4)
    )
    losses, weights = alone[0]["losses"], alone[0]["weights"]
    assert len(losses) == 4 and "loss_giou_0" in losses[0] and losses[3]["total_loss"] != losses[0]["total_loss"]
    for ranks in (two, four):
        for rank in ranks[1:]:
            assert all(torch.equal(rank["weights"][name], p) for name, p in ranks[0]["weights"].items())
        for ours, theirs in zip(ranks[0]["losses"], losses, strict=True):
            assert ours.keys() == theirs.keys()
            for name, loss in theirs.items():
                assert math.isclose(ours[name], loss, rel_tol=1e-5), name
        moved = max((p - weights[name]).abs().max() for name, p in ranks[0]["weights"].items())
        assert moved < 4 * 4e-4 * 1e-2, "of four steps at a rate of 4e-4"


@pytest.mark.parametrize(("num_processes", "num_pictures"), [(2, 5), (4, 3)], ids=str)
def test_an_evaluation_sees_every_picture_once_and_has_the_figures_of_one_process(
    tiny_opts, tmp_path, monkeypatch, num_processes, num_pictures
):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    root = shapes.draw_shapes(tmp_path / "coco", pictures=(1, num_pictures))
    found = {}
    for number in (1, num_processes):
        opts = [*tiny_opts, *SAME_FOR_ALL, "OUTPUT_DIR", str(tmp_path / f"output{number}")]
        ranks = run(processes.evaluate, number, tmp_path / f"of{number}", opts, root)
        assert sorted(i for rank in ranks for i in rank["seen"]) == list(range(1, num_pictures + 1))
        assert ranks[0]["results"] and not any(rank["results"] for rank in ranks[1:]), "the first rank has the figures"
        results = json.loads((tmp_path / f"output{number}/inference/coco_instances_results.json").read_text())
        found[number] = (ranks[0]["results"], sorted(results, key=lambda result: result["image_id"]))
    (alone, results_alone), (together, results_together) = found.values()
    assert len(results_alone) == len(results_together) > num_pictures
    # Not to the last bit: a process alone computes with more threads, which round otherwise.
    for ours, theirs in zip(results_alone, results_together, strict=True):
        assert (ours["image_id"], ours["category_id"]) == (theirs["image_id"], theirs["category_id"])
        assert [*ours["bbox"], ours["score"]] == pytest.approx([*theirs["bbox"], theirs["score"]], abs=1e-3)
    assert together["bbox"] == pytest.approx(alone["bbox"], abs=1e-3, nan_ok=True)


def test_all_processes_evaluate_the_model_that_the_first_one_saves(drawn_balloons, tiny_opts, tmp_path):
    opts = [*tiny_opts, *SAME_FOR_ALL, "MODEL.RESNETS.NORM", "BN", "OUTPUT_DIR", str(tmp_path)]
    ranks = run(processes.evaluate_trained, 2, tmp_path / "ranks", opts)
    name = next(iter(ranks[0]["trained"]))
    assert not torch.equal(*(rank["trained"][name] for rank in ranks)), "each counts pictures of its own"
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    for rank in ranks:
        for name, counted in rank["evaluated"].items():
            assert torch.equal(counted, saved[name.removeprefix("module.")])


# ---- failures


def test_a_mistake_in_one_process_is_one_clear_message():
    with pytest.raises(InputError) as error:
        launch(processes.fail, num_processes=2, device="cpu", args=(1, "input"))
    assert str(error.value) == "the file is broken"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_ends_the_others_with_its_own_traceback(rank):
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as error:
        launch(processes.fail, num_processes=2, device="cpu", args=(rank, "bug"))
    assert f"ZeroDivisionError: in rank {rank}" in str(error.value) and "processes.py" in str(error.value)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_processes": 0}, "--num-gpus 0"),
        ({"num_processes": 1, "num_machines": 2, "machine_rank": 2}, "--machine-rank 2 of --num-machines 2"),
        ({"num_processes": 1, "num_machines": 2, "dist_url": "auto"}, "--dist-url 'auto': .*tcp://HOST:PORT"),
        ({"num_processes": 99, "device": "cuda"}, "--num-gpus 99, but this machine has|torch sees no GPU here"),
    ],
    ids=["no_process", "rank", "no_address", "too_many_gpus"],
)
def test_numbers_that_make_no_sense_are_refused(numbers, message):
    with pytest.raises(InputError, match=message):
        launch(processes.write_rank, **({"device": "cpu"} | numbers))


def test_processes_on_the_cpu_share_its_cores_and_are_announced(tmp_path, monkeypatch):
    said = []
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    logger = logging.getLogger("d2_detr.engine.distributed")
    monkeypatch.setattr(logger, "warning", lambda text, *args: said.append(text % args))
    launch(processes.write_threads, num_processes=2, device="cpu", args=(tmp_path,))
    assert sum(int(path.read_text()) for path in tmp_path.iterdir()) <= max(2, len(os.sched_getaffinity(0)))
    assert said == ["There is no GPU: 2 processes share the CPU of this machine"]


def test_a_gpu_that_is_not_there_is_told_by_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="MODEL.DEVICE cuda, but torch sees no GPU here"):
        launch(os.getpid, num_processes=1, device="cuda")


def test_one_process_is_this_one():
    assert launch(os.getpid, num_processes=1, device="cpu") == os.getpid()


# ---- the command line


def train_net(tmp_path, drawn_balloons, prefix, *args, opts):
    environment = os.environ | {"DETECTRON2_DATASETS": str(drawn_balloons.parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *prefix, str(ROOT / "tools/train_net.py"), "--config", "detr_compact_balloon_drawn.yaml"]
    opts = [*opts, "DATASETS.TEST", "('balloon_drawn_val',)", "SOLVER.MAX_ITER", "2", "TEST.REPORT", "True"]
    return subprocess.Popen(
        [*command, *args, *opts],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def assert_trained_once(folder):
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert len([line for line in lines if "bbox/AP" in line]) == 1, "one process writes"
    assert len(list(folder.glob("events.out.tfevents*"))) == 1 and (folder / "report.html").is_file()
    assert torch.load(folder / "model_final.pth", weights_only=True)["iteration"] == 1


def test_two_machines_meet_at_an_address_and_the_first_one_writes(drawn_balloons, tiny_opts, tmp_path):
    meet = ("--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{_free_port()}")
    machines = []
    for rank in range(2):
        opts = [*tiny_opts, *SAME_FOR_ALL, "OUTPUT_DIR", str(tmp_path / f"machine{rank}")]
        args = (*meet, "--machine-rank", str(rank))
        machines.append(train_net(tmp_path, drawn_balloons, (), *args, opts=opts))
    outputs = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert_trained_once(tmp_path / "machine0")
    assert {path.name for path in (tmp_path / "machine1").iterdir()} <= {"log.txt.rank1", "inference"}


def test_torchrun_starts_the_processes(drawn_balloons, tiny_opts, tmp_path):
    prefix = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(_free_port()))
    process = train_net(tmp_path, drawn_balloons, prefix, opts=[*tiny_opts, *SAME_FOR_ALL])
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "World size: 2" in (tmp_path / "log.txt").read_text()
    assert_trained_once(tmp_path)
