"""What definitions share: numbers looked at for a choice, and the refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..insides import without_modes

Definitions = dict[str, Callable[..., Any]]  # by the operation's name in torch's schema


class NotDefinedError(Exception):
    """The arguments are such that the operation has no definition here; the message says which."""


@contextmanager
def plainly() -> Iterator[None]:
    """Numbers looked at for a choice; nothing in here is recorded."""
    with without_modes():
        yield
