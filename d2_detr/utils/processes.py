"""Work on a list with all cores of this machine."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
Result = TypeVar("Result")

MAX_WORKERS = 32
_function: Callable[[Any], Any]  # in a worker


def map_in_processes(
    function: Callable[[T], Result], items: Sequence[T], description: str, *, num_workers: int
) -> Iterator[Result]:
    """Yield the results of a function for each item, in their order, with a progress bar if it takes seconds.

    The workers are forked: they share the memory of this process, and `function` may be a closure. Items and results
    are pickled. Where processes cannot be forked, the workers are threads.

    Args:
        function: must not use torch, whose threads a forked process does not have.
        items: pieces of work that take long compared to passing them on.
        description: what is done, for the progress bar.
        num_workers: maximum number of workers.

    Raises:
        Exception: what `function` raises for the first item that fails.
    """
    num_workers = min(num_workers, len(items), MAX_WORKERS)
    if num_workers <= 1:
        yield from tqdm(map(function, items), description, len(items), delay=2, leave=False)
        return
    with _executor(function, num_workers) as executor:
        futures: list[Future[Result] | None] = []
        with warnings.catch_warnings():  # Python 3.12 warns if there are threads, for the reason given above
            warnings.simplefilter("ignore", DeprecationWarning)
            futures += [executor.submit(_call, item) for item in items]
        try:
            for i in tqdm(range(len(items)), description, delay=2, leave=False):
                future, futures[i] = futures[i], None  # the executor would keep all results to the end
                assert future
                yield future.result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunks(length: int, size: int) -> list[range]:
    """Divide `range(length)` into ranges of `size`; the last one may be smaller."""
    return [range(start, min(start + size, length)) for start in range(0, length, size)]


def _executor(function: Callable[[Any], Any], num_workers: int) -> Executor:
    can_fork = "fork" in multiprocessing.get_all_start_methods() and not multiprocessing.current_process().daemon
    if can_fork:
        context = multiprocessing.get_context("fork")
        # Arguments of the initializer are inherited, not pickled.
        return ProcessPoolExecutor(num_workers, context, initializer=_set_function, initargs=(function,))
    return ThreadPoolExecutor(num_workers, initializer=_set_function, initargs=(function,))


def _set_function(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function


def _call(item: Any) -> Any:
    return _function(item)
