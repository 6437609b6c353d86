"""Targets on a Dask cluster that is there already.

A task is a batch of targets. Its worker runs them as `worker` does here, in processes of their own or shared
ones, so that nothing that happens there ends a worker of Dask's; what they give comes back as bytes, of which
nothing is loaded but records of ours. The cluster's workers see the same files, by the same paths, and have
the same gradproof.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from . import __version__
from .errors import GradproofError, InputError, TargetError, said, shown
from .packing import loaded, packed
from .worker import Limits, supervised

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 10  # seconds, for a cluster to answer
BATCH = 25  # targets of a task, at most: the process that takes them lives as long
SHARES = 4  # tasks a worker, at least, so that all end at about the same time

Items = Sequence[tuple[T, Limits]]


def spread(
    address: str, items: Items[T], function: Callable[[T], R], shared: Collection[int]
) -> Generator[tuple[int, R | GradproofError]]:
    """What the function gives for each item, as it comes from the cluster; as `supervised`.

    Raises `InputError` where Dask is not installed, where there is no cluster at that address, and where its
    workers have no gradproof or another one.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise InputError(f"--dask needs dask.distributed ({error}); install gradproof[dask]") from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise InputError(f"--dask {address}: no cluster answers there: {said(error)}") from None
    with client:
        threads = _asked(client, address)
        most = min(BATCH, max(1, len(items) // (SHARES * threads)))
        batches: dict[Any, list[int]] = {}
        for n in range(0, len(items), most):
            numbers = [*range(n, min(n + most, len(items)))]
            told = [items[m] for m in numbers], [k for k, m in enumerate(numbers) if m in shared]
            future = client.submit(_batch, function, *told, str(Path.cwd()), pure=False)
            batches[future] = numbers
        try:
            for future in as_completed(batches, loop=client.loop):
                yield from _outcomes(future, batches[future])
        finally:
            client.cancel([*batches])


def _asked(client: Any, address: str) -> int:
    """How many threads the cluster's workers have in all; each of them has our version."""
    try:
        found = client.run(_version)
    except Exception as error:  # what a worker cannot load may raise anything
        raise InputError(f"--dask {address}: its workers cannot load gradproof: {said(error)}") from None
    other = sorted({their for their in found.values() if their != __version__})
    if other:
        raise InputError(f"--dask {address}: its workers have gradproof {other[0]}, expected {__version__}")
    if not found:
        raise InputError(f"--dask {address}: the cluster has no workers")
    return max(sum(client.nthreads().values()), 1)


def _outcomes(future: Any, numbers: Sequence[int]) -> Generator[tuple[int, Any]]:
    try:
        outcomes: Sequence[tuple[int, bytes]] = future.result()
    except Exception as error:  # a worker that is gone, a task that was cancelled by others
        yield from ((n, TargetError(f"the cluster lost it: {said(error)}")) for n in numbers)
        return
    for m, text in outcomes:
        outcome = loaded(text)
        if isinstance(outcome, TargetError) and outcome.place is not None:  # as seen from here
            outcome = TargetError(outcome.message, replace(outcome.place, file=shown(outcome.place.file)))
        yield numbers[m], outcome


# On a worker of the cluster's


def _version() -> str:
    return __version__


def _batch(
    function: Callable[[T], object], items: Items[T], shared: Collection[int], where: str
) -> list[tuple[int, bytes]]:
    """What came of each item of a batch."""
    # Dask's workers are daemons, which may start no process; ours end with them all the same.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    return [(n, packed(outcome)) for n, outcome in supervised(items, function, 1, shared, where)]
