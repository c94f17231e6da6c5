"""Work in several processes has the results of one."""

import multiprocessing
import os
import threading

import pytest

from d2_detr.utils.errors import InputError
from d2_detr.utils.processes import chunks, map_in_processes


@pytest.mark.parametrize("num_workers", [1, 2, 5, 99])
def test_results_are_in_the_order_of_the_items(num_workers):
    offset = 7  # of a closure, which could not be pickled
    found = list(map_in_processes(lambda i: (i + offset, os.getpid()), range(20), "Testing", num_workers=num_workers))
    assert [value for value, _ in found] == list(range(7, 27))
    assert (os.getpid() in {pid for _, pid in found}) == (num_workers == 1)


def test_there_may_be_nothing_to_do():
    assert list(map_in_processes(str, [], "Testing", num_workers=4)) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_is_that_of_the_first_item(num_workers):
    def fail(i):
        if i > 2:
            raise InputError(f"item {i}")
        return i

    with pytest.raises(InputError, match="item 3"):
        list(map_in_processes(fail, range(9), "Testing", num_workers=num_workers))


def test_threads_work_where_processes_cannot_be_forked(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    found = list(map_in_processes(lambda i: (i, threading.current_thread()), range(9), "Testing", num_workers=2))
    assert [i for i, _ in found] == list(range(9)) and threading.main_thread() not in {thread for _, thread in found}


def test_chunks_are_consecutive():
    assert chunks(7, 3) == [range(0, 3), range(3, 6), range(6, 7)] and chunks(0, 3) == []
