"""Training and evaluation in several processes give the results of one, and failures end them."""

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
from d2_detr.engine.supervision import ProcessError
from d2_detr.utils.errors import InputError
from tests import shapes
from tests.engine import processes

ROOT = Path(__file__).parents[2]
# Without random flips and batch norm statistics, which differ between processes.
SAME_FOR_ALL = (
    "INPUT.RANDOM_FLIP none MODEL.RESNETS.NORM FrozenBN SOLVER.IMS_PER_BATCH 8 SOLVER.MAX_ITER 4 SOLVER.STEPS () "
    "SOLVER.CHECKPOINT_PERIOD 100 TEST.EVAL_PERIOD 0 DATASETS.TEST () MODEL.DETR.NUM_CLASSES 1"
).split()


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(main, num_processes, folder, *args):
    """Return what each rank wrote."""
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
        assert moved < 4 * 4e-4 * 1e-2, "1 % of four steps at a rate of 4e-4"


@pytest.mark.parametrize(("num_processes", "num_images"), [(2, 5), (4, 3)], ids=str)
def test_evaluation_in_several_processes_equals_one(tiny_opts, tmp_path, monkeypatch, num_processes, num_images):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    root = shapes.draw_shapes(tmp_path / "coco", num_images=(1, num_images))
    outputs = {}
    for number in (1, num_processes):
        opts = [*tiny_opts, *SAME_FOR_ALL, "OUTPUT_DIR", str(tmp_path / f"output{number}")]
        ranks = run(processes.evaluate, number, tmp_path / f"of{number}", opts, root)
        assert sorted(i for rank in ranks for i in rank["seen"]) == list(range(1, num_images + 1))
        assert ranks[0]["results"] and not any(rank["results"] for rank in ranks[1:]), "the first rank has the metrics"
        results = json.loads((tmp_path / f"output{number}/inference/coco_instances_results.json").read_text())
        outputs[number] = (ranks[0]["results"], sorted(results, key=lambda result: result["image_id"]))
    (alone, results_alone), (together, results_together) = outputs.values()
    assert len(results_alone) == len(results_together) > num_images
    # Not to the last bit: a single process has more threads, which round differently.
    for ours, theirs in zip(results_alone, results_together, strict=True):
        assert (ours["image_id"], ours["category_id"]) == (theirs["image_id"], theirs["category_id"])
        assert [*ours["bbox"], ours["score"]] == pytest.approx([*theirs["bbox"], theirs["score"]], abs=1e-3)
    assert together["bbox"] == pytest.approx(alone["bbox"], abs=1e-3, nan_ok=True)


def test_all_processes_evaluate_the_saved_model(drawn_balloons, tiny_opts, tmp_path):
    opts = [*tiny_opts, *SAME_FOR_ALL, "MODEL.RESNETS.NORM", "BN", "OUTPUT_DIR", str(tmp_path)]
    ranks = run(processes.evaluate_trained, 2, tmp_path / "ranks", opts)
    name = next(iter(ranks[0]["trained"]))
    assert not torch.equal(*(rank["trained"][name] for rank in ranks)), "each has statistics of its own images"
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    for rank in ranks:
        for name, counted in rank["evaluated"].items():
            assert torch.equal(counted, saved[name.removeprefix("module.")])


def test_one_process_parses_a_large_file_and_the_others_use_its_result(tmp_path, monkeypatch):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    root = shapes.draw_shapes(tmp_path / "coco")
    first, *others = run(processes.load, 3, tmp_path / "ranks", ["MODEL.DEVICE", "cpu"], root)
    assert first["parsed"] == ["custom_train.json", "custom_val.json"]
    assert all(rank["parsed"] == [] and rank["records"] == first["records"] for rank in others)
    assert len(first["records"]) == 6


# ---- failures


def test_an_error_in_the_data_ends_all_processes_with_its_message(tmp_path, monkeypatch):
    monkeypatch.setenv("D2_DETR_CACHE", str(tmp_path / "cache"))
    root = shapes.draw_shapes(tmp_path / "coco")
    coco = shapes.read(root, "train")
    coco["annotations"][2]["image_id"] = 77
    shapes.write(coco, root, "train")
    with pytest.raises(InputError, match=r"^\S*custom_train\.json: annotations\[2\] \(id 2\): image_id 77 is not"):
        run(processes.load, 2, tmp_path / "ranks", ["MODEL.DEVICE", "cpu"], root)


def test_input_error_of_one_process_is_raised_unchanged():
    with pytest.raises(InputError) as error:
        launch(processes.fail, num_processes=2, device="cpu", args=(1, "input"))
    assert str(error.value) == processes.MESSAGE


@pytest.mark.parametrize("rank", [0, 1])
def test_failing_process_ends_the_others_with_its_traceback(rank):
    with pytest.raises(ProcessError) as error:
        launch(processes.fail, num_processes=2, device="cpu", args=(rank, "bug"))
    assert f"ZeroDivisionError: in rank {rank}" in str(error.value) and "processes.py" in str(error.value)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_processes": 0}, "--num-gpus 0"),
        ({"num_processes": 1, "num_machines": 2, "machine_rank": 2}, "--machine-rank 2 of --num-machines 2"),
        ({"num_processes": 1, "num_machines": 2, "dist_url": "auto"}, "--dist-url 'auto': .*tcp://HOST:PORT"),
        ({"num_processes": 2, "device": "cuda:1"}, "every process has its GPU|torch finds no GPU here"),
        ({"num_processes": 99, "device": "cuda"}, "--num-gpus 99, but this machine has|torch finds no GPU here"),
    ],
    ids=["no_process", "rank", "no_address", "one_gpu", "too_many_gpus"],
)
def test_invalid_process_counts_are_an_error(numbers, message):
    with pytest.raises(InputError, match=message):
        launch(processes.write_rank, **({"device": "cpu"} | numbers))


def test_cpu_processes_share_the_cores_with_a_warning(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    logger = logging.getLogger("d2_detr.engine.distributed")
    monkeypatch.setattr(logger, "warning", lambda text, *args: warnings.append(text % args))
    launch(processes.write_threads, num_processes=2, device="cpu", args=(tmp_path,))
    assert sum(int(path.read_text()) for path in tmp_path.iterdir()) <= max(2, len(os.sched_getaffinity(0)))
    assert warnings == ["There is no GPU: 2 processes share the CPU of this machine"]


def test_a_missing_gpu_is_an_error_that_names_the_key(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="MODEL.DEVICE cuda, but torch finds no GPU here"):
        launch(os.getpid, num_processes=1, device="cuda")


def test_one_process_is_the_current_process():
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


def test_two_machines_train_and_the_first_one_writes(drawn_balloons, tiny_opts, tmp_path):
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
    assert "world size of 2" in (tmp_path / "log.txt").read_text()
    assert_trained_once(tmp_path)
