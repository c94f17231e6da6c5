import os
import subprocess
import sys
import time

import pytest
import torch

from d2_detr.engine.hooks import cores
from d2_detr.engine.hooks.cores import ShareCores

BUSY = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads that a test may change, on two cores."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "_cores", lambda: {0, 1})
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_after(monkeypatch, *readings):
    """Return the threads after each of several seconds, whose readings are (busy, own) seconds of the cores so far."""
    clock, times = iter(range(0, 100, 4)), iter([(0.0, 0.0), *readings])
    monkeypatch.setattr(cores.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(cores, "_cpu_seconds", lambda: next(times))
    monkeypatch.setattr(cores, "PERIOD", 0.0)
    hook, found = ShareCores(), []
    hook.before_train()
    clock = iter([t for t in range(4, 100, 4) for _ in range(2)])
    monkeypatch.setattr(cores.time, "monotonic", lambda: next(clock))
    for _ in readings:
        hook.after_step()
        found.append(torch.get_num_threads())
    return found


@pytest.mark.skipif(not (cores.PROC / "stat").exists(), reason="only Linux tells how busy its cores are")
def test_threads_are_given_up_while_others_use_the_cores(monkeypatch, two_threads):
    alone, shared, alone_again = (8.0, 8.0), (16.0, 12.0), (24.0, 20.0)
    assert threads_after(monkeypatch, alone, shared, alone_again) == [2, 1, 2]


@pytest.mark.skipif(not (cores.PROC / "stat").exists(), reason="only Linux tells how busy its cores are")
def test_one_thread_stays_and_the_first_loss_is_warned_about(monkeypatch, two_threads):
    warnings = []
    monkeypatch.setattr(cores.logger, "warning", lambda text, *args: warnings.append(text % args))
    assert threads_after(monkeypatch, (8.0, 1.0), (16.0, 2.0)) == [1, 1]
    assert len(warnings) == 1 and "use 1.8 of the 2 CPU cores" in warnings[0]


def test_a_given_number_of_threads_stays(monkeypatch, two_threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_after(monkeypatch, (8.0, 1.0), (16.0, 2.0)) == [2, 2], "others use 1.8 of the 2 cores"


@pytest.mark.skipif(not (cores.PROC / "stat").exists(), reason="only Linux tells how busy its cores are")
def test_time_of_children_is_the_own_time():
    """Of the workers of a loader, that is, also of those that have ended."""
    busy, own = cores._cpu_seconds()
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    later_busy, later_own = cores._cpu_seconds()
    assert later_own - own >= 0.5 and later_busy - busy >= 0.4
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child:
        time.sleep(0.3)
        assert os.getpid() in {parent for parent, _ in cores._processes().values()}
        child.wait()
