import json
import logging
import random

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)
from detectron2.utils.logger import create_small_table, setup_logger


def test_a_single_process_needs_no_process_group():
    assert (comm.get_world_size(), comm.get_rank(), comm.get_local_rank()) == (1, 0, 0)
    assert comm.is_main_process()
    assert comm.all_gather("x") == comm.gather("x") == ["x"]
    assert 0 <= comm.shared_random_seed() < 2**31
    comm.synchronize()


def _run_process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    comm.create_local_process_group(2)
    comm.synchronize()
    np.random.seed(rank)
    seen = {
        "ranks": (comm.get_rank(), comm.get_local_rank()),
        "size": comm.get_world_size(),
        "main": comm.is_main_process(),
        "all_gather": comm.all_gather({"rank": rank}),
        "gather": comm.gather(rank),
        "gather_to_1": comm.gather(rank, dst=1),
        "seed": comm.shared_random_seed(),
    }
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(seen, file)
    dist.destroy_process_group()


def test_two_processes_exchange_objects(tmp_path):
    workers = [mp.get_context("fork").Process(target=_run_process, args=(rank, tmp_path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (first["ranks"], second["ranks"]) == ([0, 0], [1, 1])
    assert first["size"] == second["size"] == 2
    assert (first["main"], second["main"]) == (True, False)
    assert first["all_gather"] == second["all_gather"] == [{"rank": 0}, {"rank": 1}]
    assert (first["gather"], second["gather"]) == ([0, 1], [])
    assert (first["gather_to_1"], second["gather_to_1"]) == ([], [0, 1])
    assert first["seed"] == second["seed"]


def test_storage_is_only_available_inside_its_context():
    assert not has_event_storage()
    with EventStorage(5) as outer, EventStorage() as inner:
        assert get_event_storage() is inner
        assert (outer.iter, inner.iter) == (5, 0)
    assert not has_event_storage()
    with pytest.raises(AssertionError):
        get_event_storage()


def test_scalars_are_smoothed_over_iterations_if_hinted():
    storage = EventStorage()
    for value in range(10):
        storage.put_scalar("noisy", value)
        storage.put_scalars(exact=value, smoothing_hint=False)
        storage.step()
    assert storage.iter == 10
    assert storage.latest() == {"noisy": (9, 9), "exact": (9, 9)}
    assert storage.latest_with_smoothing_hint(4) == {"noisy": (7.5, 9), "exact": (9, 9)}
    assert storage.count_samples("noisy", 4) == 4
    assert storage.history("noisy").avg(2) == 8.5
    assert set(storage.histories()) == {"noisy", "exact"}
    with pytest.raises(KeyError, match="unheard"):
        storage.history("unheard")


def test_samples_are_counted_by_iteration():
    storage = EventStorage()
    for iteration in (0, 8, 9, 9, 9):
        storage.put_scalar("x", 1.0, cur_iter=iteration)
    assert [storage.count_samples("x", window) for window in (1, 2, 9, 10)] == [3, 4, 4, 5]


def test_scalar_keeps_its_smoothing_hint():
    storage = EventStorage()
    storage.put_scalar("lr", 1, smoothing_hint=False)
    with pytest.raises(AssertionError, match="lr"):
        storage.put_scalar("lr", 1)


def test_json_writer_appends_each_value_once(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": -1}\n')
    writer = JSONWriter(str(path))
    with EventStorage(7) as storage:
        storage.put_scalar("seldom", 3)
        storage.step()
        storage.put_scalar("loss", 1.5)
        storage.put_scalar("lr", 0.1, smoothing_hint=False)
        writer.write()
        writer.write()
    writer.close()
    expected = ['{"iteration": -1}', '{"iteration": 7, "seldom": 3.0}', '{"iteration": 8, "loss": 1.5, "lr": 0.1}']
    assert path.read_text().splitlines() == expected


def test_tensorboard_file_appears_with_the_first_write(tmp_path):
    writer = TensorboardXWriter(str(tmp_path))
    writer.close()
    assert not list(tmp_path.iterdir())
    with EventStorage() as storage:
        storage.put_scalar("loss", 1)
        writer.write()
    writer.close()
    assert [path.name.startswith("events.out.tfevents") for path in tmp_path.iterdir()] == [True]


@pytest.mark.parametrize("max_iter, eta", [(11, " eta: 0:00:16  "), (None, " ")])
def test_printer_shows_progress_on_one_line(caplog, max_iter, eta):
    with EventStorage(2) as storage, caplog.at_level(logging.INFO, "detectron2.utils.events"):
        scalars = {"loss_ce": 0.123456, "total_loss": 2, "[metric]x": 3, "time": 2, "data_time": 0.25, "other": 1}
        storage.put_scalars(**scalars)
        storage.put_scalar("lr", 1e-4, smoothing_hint=False)
        CommonMetricPrinter(max_iter).write()
    memory = f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M" if torch.cuda.is_available() else ""
    assert caplog.messages == [
        f"{eta}iter: 2  loss_ce: 0.1235  total_loss: 2  [metric]x: 3  "
        f"time: 2.0000  last_time: 2.0000  data_time: 0.2500  last_data_time: 0.2500   lr: 0.0001  {memory}"
    ]


def test_printer_estimates_the_time_if_it_is_not_stored(caplog, monkeypatch):
    monkeypatch.setattr("time.perf_counter", iter([100.0, 106.0, 106.0]).__next__)
    printer = CommonMetricPrinter(10)
    with EventStorage(2) as storage, caplog.at_level(logging.INFO, printer.logger.name):
        printer.write()
        storage.iter = 5
        printer.write()
        assert "eta_seconds" not in storage.histories()
    assert [message.split("iter")[0] for message in caplog.messages] == [" ", " eta: 0:00:08  "]  # 4 times 2 s


def test_printer_is_silent_after_the_last_iteration(caplog):
    with EventStorage(3), caplog.at_level(logging.INFO, "detectron2.utils.events"):
        CommonMetricPrinter(3).write()
    assert not caplog.messages


def test_logger_writes_a_file_per_rank_once(tmp_path, capsys):
    for _ in range(2):
        setup_logger(str(tmp_path), distributed_rank=1, name="embedded_rank1")
    logger = setup_logger(str(tmp_path / "my.log"), name="embedded_main")
    logging.getLogger("embedded_rank1.part").warning("from one")
    logger.info("from main")
    for handler in logger.handlers + logging.getLogger("embedded_rank1").handlers:
        handler.flush()
    lines = (tmp_path / "log.txt.rank1").read_text().splitlines()
    assert len(lines) == 1 and lines[0].endswith("] embedded_rank1.part WARNING: from one")
    assert (tmp_path / "my.log").read_text().endswith("] embedded_main INFO: from main\n")
    assert "from main" in capsys.readouterr().out and not logger.propagate


def test_warnings_are_marked_on_the_terminal(capsys):
    logger = setup_logger(name="embedded_long")
    logger.info("hello")
    logger.warning("careful")
    hello, careful = capsys.readouterr().out.splitlines()
    assert "embedded_long]: " in hello and hello.endswith("hello")
    assert "WARNING" not in hello and "WARNING" in careful


def test_log_lines_abbreviate_detectron2(tmp_path, capsys):
    root = logging.getLogger("detectron2")
    before = root.level, root.propagate, root.handlers[:]
    root.handlers = []
    try:
        setup_logger(str(tmp_path / "main.log"))
        logging.getLogger("detectron2.part").info("hello")
        assert "d2.part]: " in capsys.readouterr().out
        root.handlers[1].flush()
    finally:
        root.level, root.propagate, root.handlers = before
    assert (tmp_path / "main.log").read_text().endswith("] d2.part INFO: hello\n")


def test_small_table_has_the_keys_as_header():
    assert create_small_table({"AP": 12.34567, "AP50": 1}).splitlines() == [
        "|   AP   |  AP50  |",
        "|:------:|:------:|",
        "| 12.346 |   1    |",
    ]


def test_a_seed_makes_all_generators_reproducible():
    def draw():
        seed_all_rng(5)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()
    seed_all_rng()
    assert random.random() != draw()[0]


def test_environment_names_the_versions():
    info = collect_env_info()
    assert "0.6" in info and torch.__version__ in info and np.__version__ in info
