"""How far long work is: a bar on stderr with what it is at, and only on a terminal.

    for name in tracked(names, len(names), str):
        ...

With Ctrl-C the bar goes away and `KeyboardInterrupt` goes on to whoever holds what is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

MAX_NAME = 60  # characters of what it is at

Step = Callable[[str], None]


def tracked(items: Iterable[T], total: int, describe: Callable[[T], str]) -> Iterator[T]:
    """The items as they come, with a bar beside them that names the one in hand; a single item needs none."""
    with bar(total) as step:
        for item in items:
            step(describe(item))
            yield item


@contextmanager
def bar(total: int) -> Iterator[Step]:
    """`step(name)` begins the next of `total` pieces of work; where there is no terminal, it does nothing."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # A name may hold brackets, which are no markup of ours. What is printed on stdout meanwhile stays there.
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as shown:
        task = shown.add_task("", total=total)
        begun = iter(range(total + 1))

        def step(name: str) -> None:
            shown.update(task, completed=next(begun, total), description=short(name))

        yield step


def short(name: str) -> str:
    """A name in one line of a terminal, without what would steer it.

    >>> short("a" * 70 + "/ols.toml")[:2], short("two\\nlines\\x1b[2J")
    ('…a', 'two?lines?[2J')
    """
    shown = "".join(c if c.isprintable() else "?" for c in name)
    return shown if len(shown) <= MAX_NAME else f"…{shown[1 - MAX_NAME :]}"
