"""A list of targets, one after the other or several at a time: what came of each, and why it did not of
others.

A bad one does not stop the others, nor does Ctrl-C lose what is done. Python of the user's runs in a process
of its own; files alone are checked here, or in processes that take one after the other where several are at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from .errors import GradproofError, TargetError
from .output import tell
from .progress import tracked

if TYPE_CHECKING:
    from .language.files import Problem
    from .record import Record
    from .report import Report
    from .worker import Limits

T = TypeVar("T")
# Of each target its name, and how to read it: a function's name, or what makes the problem.
Work = list[tuple[str, Any]]
Outcomes = Generator[tuple[int, T | GradproofError]]
Run = Callable[[Any], "list[Report]"]


@dataclass
class Attempts(Generic[T]):
    """What came of a list of targets: what was made of them, in their order, and the reasons why the others
    failed.

    `interrupted` says that Ctrl-C came; the targets that were not reached are among the errors.
    """

    done: list[tuple[str, T]] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    interrupted: bool = False


def attempted(work: Work, function: Callable[[Any], T]) -> Attempts[T]:
    """`function` of every target, here; one with a bad input is told on stderr."""
    return _gathered(work, _one_by_one(work, function))


@dataclass(frozen=True)
class Way:
    """How targets are checked.

    The `limits` hold for Python of the user's, a function or an engine; where they were `asked` for, for
    every target. So many `jobs` are under way at a time, here or on the Dask cluster at an address. What a
    record of earlier runs holds is not checked again.
    """

    limits: Limits
    asked: bool = False
    jobs: int = 1
    cluster: str | None = None
    record: Record | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # of `check_function`


def checked(
    work: Work,
    engines: Sequence[str],
    dtype: str | None,
    way: Way,
    came: Callable[[int, list[Report]], None],
) -> Attempts[list[Report]]:
    """The reports of every target, one an engine, told to `came` at once.

    Raises what loading an engine of the user's raises, and `InputError` where there is no such cluster.
    """
    from .targets import is_function
    from .worker import alone

    own = next(filter(is_function, engines), None)
    broken = alone(own, way.limits, _loaded) if own is not None else None
    outcomes: Outcomes[list[Report]]
    if isinstance(broken, TargetError):
        outcomes = _one_by_one(work, partial(_raise, broken))
    elif isinstance(broken, GradproofError):
        raise broken
    else:
        run = partial(_check, engines=engines, dtype=dtype, options=way.options)
        outcomes = _outcomes(work, own is not None, way, run)
    failed = partial(_failed, engines=engines, dtype=dtype, limits=way.limits)
    return _gathered(work, _reported(work, outcomes, failed), came)


def _outcomes(work: Work, own: bool, way: Way, run: Run) -> Outcomes[list[Report]]:
    """Of every target, what a record holds, and what comes of the others; `own` is an engine of the
    user's."""
    if way.record is None:
        yield from _fresh(work, own, way, run)
        return
    from .record import Seen, watched

    left: list[int] = []
    for n, (target, make) in enumerate(work):
        if (reports := way.record.known(target, make)) is not None:
            yield n, reports
        else:
            left.append(n)
    if len(left) < len(work):
        tell(f"{len(work) - len(left)} of {len(work)} unchanged: shown from the record of earlier runs")
    outcomes: Outcomes[Seen] = _fresh([work[n] for n in left], own, way, partial(watched, run))
    try:
        for m, outcome in outcomes:
            if isinstance(outcome, GradproofError):
                yield left[m], outcome
            else:
                way.record.keep(*work[left[m]], outcome)
                yield left[m], [*outcome.reports]
    finally:
        outcomes.close()


def _fresh(work: Work, own: bool, way: Way, run: Callable[[Any], T]) -> Outcomes[T]:
    """Of every target: so many at a time, or one by one, and then here where it has no limits."""
    from .worker import Limits, alone, supervised

    users = [own or isinstance(make, str) for _, make in work]
    most = [way.limits if way.asked or user else Limits(0, 0) for user in users]
    items = [(make, limits) for (_, make), limits in zip(work, most, strict=True)]
    shared = {n for n, user in enumerate(users) if not user}
    several: Outcomes[T] | None = None
    if way.cluster is not None:
        from .cluster import spread

        several = spread(way.cluster, items, run, shared)
    elif len(work) > 1 and (way.jobs > 1 or way.asked):
        several = supervised(items, run, way.jobs, shared)
    if several is not None:
        yield from tracked(several, len(items), lambda pair: work[pair[0]][0])
        return
    for n, (_, make) in tracked(enumerate(work), len(work), lambda pair: pair[1][0]):
        yield n, alone(make, most[n], run) if way.asked or users[n] else _here(run, make)


def _reported(work: Work, outcomes: Outcomes[T], failed: Callable[..., T]) -> Outcomes[T]:
    """What broke off has a report that says so."""
    try:
        for n, outcome in outcomes:
            if isinstance(outcome, TargetError):
                outcome = _here(partial(failed, error=outcome), work[n][1])
            yield n, outcome
    finally:
        outcomes.close()


def _gathered(
    work: Work, outcomes: Outcomes[T], came: Callable[[int, T], None] = lambda n, outcome: None
) -> Attempts[T]:
    made: dict[int, T] = {}
    reasons: dict[int, str] = {}
    interrupted = False
    try:
        for n, outcome in outcomes:
            if isinstance(outcome, GradproofError):
                reasons[n] = str(outcome)
                tell(outcome)
            else:
                made[n] = outcome
                came(n, outcome)
    except KeyboardInterrupt:
        interrupted = True
        outcomes.close()
        tell(f"interrupted after {len(made) + len(reasons)} of {len(work)}")
        reasons |= {
            n: "interrupted before it was checked"
            for n in range(len(work))
            if n not in made and n not in reasons
        }
    names = [target for target, _ in work]
    done = [(names[n], made[n]) for n in sorted(made)]
    return Attempts(done, [(names[n], reasons[n]) for n in sorted(reasons)], interrupted)


def _one_by_one(work: Work, function: Callable[[Any], T]) -> Outcomes[T]:
    for n, (_, item) in tracked(enumerate(work), len(work), lambda pair: pair[1][0]):
        yield n, _here(function, item)


def _here(function: Callable[[Any], T], item: Any) -> T | GradproofError:
    try:
        return function(item)
    except GradproofError as error:
        return error


# What is done with one target


def _raise(error: GradproofError, make: object) -> NoReturn:
    raise error


def _loaded(engine: str) -> None:
    from .engines import engine_named

    engine_named(engine)


def _check(
    make: Callable[[], Problem] | str,
    engines: Sequence[str],
    dtype: str | None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> list[Report]:
    """A report for every engine."""
    if isinstance(make, str):
        from .targets import load_function
        from .torch.check import check_function

        func, inputs = load_function(make)
        return [replace(check_function(func, *inputs, **options), target=make)]
    from .oracle import check, compared

    problem = make()
    return compared([check(problem, engine=engine, dtype=dtype) for engine in engines])


def _failed(
    make: Callable[[], Problem] | str,
    engines: Sequence[str],
    dtype: str | None,
    limits: Limits,
    error: TargetError,
) -> list[Report]:
    """The reports of a target that broke off; of several engines, of which one may be to blame, each
    alone."""
    from .oracle import failed_function, failed_problem
    from .worker import alone

    if isinstance(make, str):
        return [failed_function(make, error)]
    if len(engines) == 1:
        return [failed_problem(make(), engines[0], dtype, error)]
    reports: list[Report] = []
    for engine in engines:
        outcome = alone(make, limits, partial(_check, engines=[engine], dtype=dtype))
        if isinstance(outcome, TargetError):
            outcome = _failed(make, [engine], dtype, limits, outcome)
        if isinstance(outcome, GradproofError):
            raise outcome
        reports += outcome
    return reports
