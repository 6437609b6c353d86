"""A run of a JAX function, as it was: the jaxpr's equations one by one, and the cotangents that went in and
out of each.

The jaxpr is the program: calls are inlined, scans unrolled, and a branch is the one that was taken. Each
equation that a gradient flows through runs by itself under `jax.vjp`, so that its values and its pullback are
JAX's own; then the cotangents walk from the output back, equation by equation, as JAX sums them. A
`custom_vjp` or `custom_jvp` call is one equation: its rule is JAX's to run, and what its primal computes is
kept beside it as the specification.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from ..errors import Place, UnsupportedError, said, shown
from ..torch.tape import NOWHERE, Edge, LeafStep, Region, Step, Tape

CALLS = {
    **dict.fromkeys(("jit", "pjit", "remat", "remat2", "checkpoint"), "jaxpr"),
    **dict.fromkeys(("closed_call", "core_call"), "call_jaxpr"),
}
CUSTOM = {"custom_vjp_call", "custom_vjp_call_jaxpr", "custom_jvp_call"}
STOP = "stop_gradient"
JAX = str(Path(jax.__file__).parent)
MAX_EQUATIONS = 20_000  # of an unrolled run

_storages = count(1)


class Array(Region):
    """A JAX array as a tensor of the lowering's; arrays are never written to, so each has memory of its
    own."""

    @property
    def floating(self) -> bool:
        return "float" in str(self.dtype)

    @cached_property
    def values(self) -> np.ndarray:
        return in_pairs(self.numbers)

    @property
    def kept(self) -> np.ndarray:
        return self.values

    @property
    def key(self) -> tuple[Any, ...]:
        return self.storage, self.offset, self.shape, self.stride, 0


def array_of(value: Any, edge: Edge | None = None) -> Array:
    """The array at this moment, which is for ever."""
    value = jnp.asarray(value) if not isinstance(value, jax.Array) else value
    two = jnp.iscomplexobj(value)
    shape = (*value.shape, 2) if two else tuple(value.shape)
    stride = tuple(prod(shape[n + 1 :]) for n in range(len(shape)))
    kept: Any = value
    dtype = str(value.real.dtype if two else value.dtype)
    return Array(next(_storages), prod(shape), 0, shape, stride, dtype, kept, edge, complex=two)


def in_pairs(value: Any, sign: int = 1) -> np.ndarray:
    """JAX's numbers in float64, complex ones as pairs."""
    numbers = np.asarray(value)
    if not np.iscomplexobj(numbers):
        return numbers.astype(np.float64)
    return np.stack([numbers.real, sign * numbers.imag], -1).astype(np.float64)


@dataclass(eq=False)
class Equation:
    """One equation as it ran. `body` holds those of a custom call's primal, and `results` the arrays that it
    returns.

    `known` is the primal's name where it is one of JAX's own functions.
    """

    primitive: Any
    name: str
    params: Mapping[str, Any]
    args: tuple[Array, ...]
    outs: tuple[Array, ...]
    place: Place
    body: list[Equation] = field(default_factory=list)
    results: tuple[Array, ...] = ()
    known: str = ""
    call: None = None

    @property
    def regions(self) -> tuple[Array, ...]:
        return self.args


@dataclass(eq=False)
class EquationStep(Step):
    """One equation that a gradient flows through; `failure` is what JAX raised there."""

    pull: Callable[..., Any] | None = None
    push: Callable[..., Any] | None = None
    failure: str = ""
    unsupported: str = ""
    primitive: str = ""

    @property
    def custom(self) -> bool:
        return self.primitive in CUSTOM


@dataclass(frozen=True, eq=False)
class Recording:
    """The tape, all equations in the order in which they ran, and the gradients of the function compiled as a
    whole.

    The tape's own gradients are those of the equations that ran, composed by JAX.
    """

    tape: Tape
    equations: list[Equation]
    compiled: tuple[np.ndarray | None, ...] = ()
    steps: tuple[EquationStep, ...] = ()


class _Interpreter:
    """Runs a jaxpr on arrays, and keeps what ran."""

    def __init__(self, leaves: Sequence[str] = (), *, differentiate: bool = True) -> None:
        self.equations: list[Equation] = []
        self.steps: list[EquationStep] = []
        # Those that a gradient may flow through.
        self.calls: list[tuple[Callable[..., list[Any]], list[Array], list[Array]]] = []
        self.number = len(leaves)
        self.names = dict.fromkeys(leaves, 1)
        self.differentiate = differentiate
        self.scope: list[str] = []
        self.place: Place | None = None  # of the scan that is unrolled
        self.ours = False  # whether the equations are those that take its slices

    def run(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Array]) -> list[Array]:
        """The outputs. Raises `UnsupportedError` for what is not followed."""
        env: dict[Any, Array] = {}

        def read(atom: Any) -> Array:
            return array_of(atom.val) if isinstance(atom, Literal) else env[atom]

        env.update(
            zip(jaxpr.constvars, (c if isinstance(c, Array) else array_of(c) for c in consts), strict=True)
        )
        env.update(zip(jaxpr.invars, args, strict=True))
        for eqn in jaxpr.eqns:
            outs = self._equation(eqn, [read(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, args: list[Array]) -> list[Array]:
        name, params = eqn.primitive.name, eqn.params
        if name in CALLS:
            inner = params[CALLS[name]]
            closed = hasattr(inner, "consts")
            return self.run(inner.jaxpr if closed else inner, inner.consts if closed else (), args)
        if name == "scan":
            outer, self.place = self.place, _place(eqn)
            outs = self._scan(params, args)
            self.place = outer
            return outs
        if name == "cond":
            index, *operands = args
            branches = params["branches"]
            taken = branches[int(np.clip(int(np.asarray(index.numbers)), 0, len(branches) - 1))]
            return self.run(taken.jaxpr, taken.consts, operands)
        return self._plain(eqn, args)

    def _scan(self, params: Mapping[str, Any], args: list[Array]) -> list[Array]:
        """Each turn in its place: the slices of what is scanned are equations as well."""
        fixed, carried = params["num_consts"], params["num_carry"]
        consts, carry, scanned = args[:fixed], args[fixed : fixed + carried], args[fixed + carried :]
        inner, length = params["jaxpr"], params["length"]
        turns: list[list[Array]] = [[] for _ in range(length)]
        for n in reversed(range(length)) if params["reverse"] else range(length):
            slices = [self._taken(n, whole) for whole in scanned]
            self.scope.append(f"scan[{n}]")
            outs = self.run(inner.jaxpr, inner.consts, [*consts, *carry, *slices])
            self.scope.pop()
            carry, turns[n] = outs[:carried], outs[carried:]
        outs = [value.aval for value in inner.jaxpr.outvars[carried:]] if not length else []
        if not length:
            return [*carry, *(array_of(jnp.zeros((0, *aval.shape), aval.dtype)) for aval in outs)]
        return [*carry, *(self._stacked([turn[k] for turn in turns]) for k in range(len(turns[0])))]

    def _taken(self, n: int, whole: Array) -> Array:
        """`whole[n]`, by equations."""
        shape = whole.shape[1:]

        def take(x: Any) -> Any:
            return jax.lax.reshape(jax.lax.slice_in_dim(x, n, n + 1, axis=0), shape)

        return self._traced(take, [whole])

    def _stacked(self, parts: list[Array]) -> Array:
        def stack(*xs: Any) -> Any:
            return jax.lax.concatenate([jax.lax.expand_dims(x, (0,)) for x in xs], 0)

        return self._traced(stack, parts)

    def _traced(self, func: Callable[..., Any], args: list[Array]) -> Array:
        """By equations of ours, at the scan's own line."""
        closed = jax.make_jaxpr(func)(*(arg.numbers for arg in args))
        self.ours = True
        (out,) = self.run(closed.jaxpr, closed.consts, args)
        self.ours = False
        return out

    def _plain(self, eqn: Any, args: list[Array]) -> list[Array]:
        """An equation that runs by itself."""
        if len(self.equations) >= MAX_EQUATIONS:
            raise UnsupportedError(f"the run is longer than {MAX_EQUATIONS} equations")
        call, arrays = _alone(eqn, args)
        active = [array for array in arrays if array.edge is not None and array.floating]
        place = (self.ours and self.place) or _place(eqn)
        name = eqn.primitive.name
        ran = _ran(name, call, arrays, active if self.differentiate else [])
        outs = [
            array_of(value, (self.number, nr) if active and _is_float(value) else None)
            for nr, value in enumerate(ran.values)
        ]
        equation = Equation(eqn.primitive, name, eqn.params, tuple(args), tuple(outs), place)
        self.equations.append(equation)
        if name in CUSTOM:
            name = _custom_name(eqn)
            _look_inside(equation, name, _primal(eqn))
        if self.differentiate and any(out.edge is not None for out in outs):
            self.calls.append((call, arrays, outs))
            self.steps.append(self._step(name, equation, active, ran))
        self.number += 1
        return outs

    def _step(self, name: str, equation: Equation, active: Sequence[Array], ran: _Ran) -> EquationStep:
        inputs: dict[Any, Any] = {array.edge: array for array in active}
        outputs: dict[Any, Any] = {nr: out for nr, out in enumerate(equation.outs) if out.edge is not None}
        events: list[Any] = [equation]
        return EquationStep(
            self.number,
            self._named(name),
            events,
            tuple(inputs),
            inputs,
            outputs,
            equation.place,
            "",
            pull=ran.pull,
            push=ran.push,
            failure=ran.failure,
            unsupported=ran.unsupported,
            primitive=equation.name,
        )

    def replay(self, leaves: Sequence[Array], outputs: Sequence[Array]) -> Callable[..., list[Any]]:
        """The active equations as one function of the leaves: JAX's own composition of what was recorded."""

        def func(*xs: Any) -> list[Any]:
            env = {id(leaf): x for leaf, x in zip(leaves, xs, strict=True)}
            for call, arrays, outs in self.calls:
                values = call(*(env.get(id(array), array.numbers) for array in arrays))
                env.update(zip(map(id, outs), values, strict=True))
            return [env.get(id(out), out.numbers) for out in outputs]

        return func

    def _named(self, name: str) -> str:
        """`mul`, then `mul_1`; in a scan, `scan[2]: mul`: reports tell nodes by their names, and so do nodes
        each other."""
        name = f"{'/'.join(self.scope)}: {name}" if self.scope else name
        n = self.names.get(name, 0)
        self.names[name] = n + 1
        return f"{name}_{n}" if n else name


@dataclass(frozen=True, eq=False)
class _Ran:
    """What an equation gave, its pullback, and what it makes of tangents; or why it has none."""

    values: list[Any]
    pull: Callable[..., Any] | None = None
    push: Callable[..., Any] | None = None
    failure: str = ""
    unsupported: str = ""


def _ran(name: str, call: Callable[..., list[Any]], arrays: Sequence[Array], active: Sequence[Array]) -> _Ran:
    numbers = [array.numbers for array in arrays]
    if not active or name == STOP:
        return _Ran(call(*numbers))
    moving = {id(array): n for n, array in enumerate(active)}

    def of_active(*xs: Any) -> list[Any]:
        return call(*(xs[moving[id(array)]] if id(array) in moving else array.numbers for array in arrays))

    primals = tuple(array.numbers for array in active)

    def push(tangents: Sequence[Any]) -> list[Any]:
        return jax.jvp(of_active, primals, tuple(tangents))[1]

    if name == "while":
        return _Ran(call(*numbers), push=push, unsupported="while: JAX has no reverse mode for it")
    try:
        values, pull = jax.vjp(of_active, *primals)
        return _Ran(values, pull, push)
    except Exception as error:
        return _Ran(call(*numbers), push=push, failure=said(error))


def inside(jaxpr: Any, consts: Sequence[Any], args: Sequence[Array]) -> tuple[list[Equation], list[Array]]:
    """The equations of a jaxpr at some arrays, and its results."""
    interpreter = _Interpreter(differentiate=False)
    results = interpreter.run(jaxpr, consts, args)
    return interpreter.equations, results


def _look_inside(equation: Equation, name: str, primal: Any) -> None:
    """What a custom call's primal computes; its rule is not run."""
    equation.body, results = inside(primal.jaxpr, primal.consts, equation.args)
    equation.results = tuple(results)
    equation.known = name if JAX in primal.jaxpr.debug_info.func_src_info else ""


def _alone(eqn: Any, args: Sequence[Array]) -> tuple[Callable[..., Any], list[Array]]:
    """The equation as a function of its distinct arguments, and those."""
    first: dict[Any, Array] = {}
    for atom, array in zip(eqn.invars, args, strict=True):
        if not isinstance(atom, Literal):
            first.setdefault(atom, array)
    # Two variables may be one array, and are one argument then.
    arrays = list({id(array): array for array in first.values()}.values())
    where = {id(array): n for n, array in enumerate(arrays)}
    places = [where[id(array)] for array in first.values()]
    primitive = eqn.primitive

    def call(*xs: Any) -> list[Any]:
        known = {atom: xs[place] for atom, place in zip(first, places, strict=True)}
        given = [atom.val if isinstance(atom, Literal) else known[atom] for atom in eqn.invars]
        return applied(primitive, given, eqn.params)

    return call, arrays


def applied(primitive: Any, given: Sequence[Any], params: Mapping[str, Any]) -> list[Any]:
    """What a primitive gives, as a list."""
    bound = primitive.get_bind_params(params)
    functions, named = bound if isinstance(bound, tuple) else ((), bound)  # apart, in old versions
    outs = primitive.bind(*functions, *given, **named)
    return list(outs) if primitive.multiple_results else [outs]


def _primal(eqn: Any) -> Any:
    return eqn.params.get("call_jaxpr") or eqn.params["fun_jaxpr"]


def _custom_name(eqn: Any) -> str:
    told = _primal(eqn).jaxpr.debug_info
    return (told.func_name if told else "") or eqn.primitive.name.removesuffix("_jaxpr")


def _place(eqn: Any) -> Place:
    """The user's line. JAX tells it by a function that is not public; without it there is none."""
    try:
        from jax._src.source_info_util import user_frame

        frame = user_frame(eqn.source_info.traceback)
    except (ImportError, AttributeError, TypeError):
        return NOWHERE
    if frame is None or frame.file_name == __file__:  # called by us: the function's own line tells more
        return _place_of_rule(eqn)
    return Place(shown(frame.file_name), frame.start_line)


def _place_of_rule(eqn: Any) -> Place:
    """Where the function of a custom rule is defined."""
    primal = eqn.params.get("call_jaxpr") or eqn.params.get("fun_jaxpr")
    told = primal.jaxpr.debug_info.func_src_info if primal is not None else ""
    file, _, line = told.partition(" at ")[2].rpartition(":")
    return Place(shown(file), int(line)) if file and line.isdigit() else NOWHERE


# The whole run


@dataclass(frozen=True, eq=False)
class Flat:
    """The function over the leaves that are differentiated alone: arrays in, a list of arrays out."""

    func: Callable[..., Any]
    leaves: tuple[Any, ...]
    names: tuple[str, ...]

    def __call__(self, *leaves: Any) -> list[Any]:
        return [out for out in jax.tree_util.tree_leaves(self.func(*leaves)) if _is_float(out)]


def _is_float(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    plain = isinstance(value, float | complex)
    return plain or jnp.issubdtype(getattr(value, "dtype", np.int32), jnp.inexact)


def at_width(values: Iterable[Any]) -> AbstractContextManager[Any]:
    """JAX with float64 where one of the values has it."""
    double = any(str(getattr(value, "dtype", "")) in ("float64", "complex128") for value in values)
    return jax.enable_x64(True) if double else nullcontext()


def flattened(func: Callable[..., Any], args: Sequence[Any], argnums: Sequence[int] | None) -> Flat:
    """The function of its floating leaves; all else among the arguments stays as it is."""
    asked = range(len(args)) if argnums is None else [n % len(args) for n in argnums]
    leaves: list[Any] = []
    names: list[str] = []
    homes: list[list[Any]] = []
    trees = []
    told = _argument_names(func, len(args))
    for n, arg in enumerate(args):
        paths, tree = jax.tree_util.tree_flatten_with_path(arg)
        trees.append(tree)
        kept: list[Any] = []
        for path, leaf in paths:
            if n in asked and _is_float(leaf):
                kept.append((len(leaves),))
                leaves.append(jnp.asarray(leaf))
                names.append(told[n] + jax.tree_util.keystr(path))
            else:
                kept.append([leaf])
        homes.append(kept)

    def of_leaves(*given: Any) -> Any:
        whole = [
            jax.tree_util.tree_unflatten(
                tree, [given[home[0]] if isinstance(home, tuple) else home[0] for home in kept]
            )
            for tree, kept in zip(trees, homes, strict=True)
        ]
        return func(*whole)

    return Flat(of_leaves, tuple(leaves), tuple(names))


def _argument_names(func: Callable[..., Any], length: int) -> list[str]:
    names: list[str] = []
    try:
        for parameter in inspect.signature(func).parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                names.append(parameter.name)
            elif parameter.kind is parameter.VAR_POSITIONAL:
                names += [f"{parameter.name}[{n}]" for n in range(length - len(names))]
    except (TypeError, ValueError):
        pass
    return names + [f"arg{n}" for n in range(len(names), length)]


def gradient_of(flat: Flat) -> Flat:
    """The gradients of a function, by cotangents of its outputs and by its own leaves."""
    outputs = jax.eval_shape(flat, *flat.leaves)
    seeds = _seeds([array_of(jnp.zeros(out.shape, out.dtype)) for out in [*outputs, *outputs[:1]]])
    count = len(outputs)
    names = ("cotangent",) if count == 1 else tuple(f"cotangent[{n}]" for n in range(count))

    def gradient(*given: Any) -> Any:
        _, pull = jax.vjp(flat, *given[count:])
        return pull(list(given[:count]))

    return Flat(gradient, (*seeds[:count], *flat.leaves), (*names, *flat.names))


def _trouble(message: str, *, supported: bool = True) -> Recording:
    return Recording(Tape([], [], [], [], [], [], set(), trouble=message, supported=supported), [])


def record(flat: Flat) -> Recording:
    """Run the function and its pullback; what either raises is the tape's `trouble`."""
    try:
        closed = jax.make_jaxpr(flat)(*flat.leaves)
    except jax.errors.ConcretizationTypeError as error:
        return _trouble(
            f"jax.make_jaxpr cannot follow it, since it branches on a number: {said(error)}", supported=False
        )
    except Exception as error:
        return _trouble(said(error))
    leaves = [array_of(value, (n, 0)) for n, value in enumerate(flat.leaves)]
    interpreter = _Interpreter(flat.names)
    try:
        outputs = interpreter.run(closed.jaxpr, closed.consts, leaves)
    except UnsupportedError as error:
        return _trouble(str(error), supported=False)
    except Exception as error:
        return _trouble(said(error))
    cotangents = _seeds(outputs)
    seeds: dict[Edge, Any] = {}
    for out, cotangent in zip(outputs, cotangents, strict=True):
        if out.edge is not None:
            seeds[out.edge] = cotangent if out.edge not in seeds else seeds[out.edge] + cotangent
    _walk(interpreter.steps, seeds)
    composed: Sequence[Any] = (None,) * len(leaves)
    compiled = composed
    if not any(step.failure or step.unsupported for step in interpreter.steps):
        try:
            whole, replayed = jax.jit(partial(_gradients, flat)), interpreter.replay(leaves, outputs)
            compiled = [_plain(g) for g in whole(flat.leaves, cotangents)]
            composed = [_plain(g) for g in _gradients(replayed, flat.leaves, cotangents)]
        except Exception as error:
            return _trouble(f"jax.vjp raised {said(error)}")
    found = [
        LeafStep(name, (n, 0), leaf, (gradient,))
        for n, (name, leaf, gradient) in enumerate(zip(flat.names, leaves, composed, strict=True))
    ]
    received = {edge: _plain(seed) for edge, seed in seeds.items()}
    tape = Tape([], [*interpreter.steps], found, [*outputs], [received], [], set())
    return Recording(tape, interpreter.equations, tuple(compiled), tuple(interpreter.steps))


def pushed(recording: Recording) -> tuple[dict[Edge, np.ndarray], dict[int, str]]:
    """The tangents from the leaves on, equation by equation, by value; and, by equation, what broke."""
    leaves: list[Any] = [leaf.region for leaf in recording.tape.leaves]
    drawn = _seeds([*leaves, *leaves[:1]])  # of two at least, so that a single number has a random one, too
    moving: dict[Edge, Any] = {(n, 0): tangent for n, tangent in enumerate(drawn[: len(leaves)])}
    failures: dict[int, str] = {}
    for step in recording.steps:
        tangents = [
            moving.get(edge, jnp.zeros_like(region.numbers))
            for edge, region in step.inputs.items()
            if region is not None
        ]
        if step.push is None or not any(edge in moving for edge in step.inputs):
            continue  # a stop
        try:
            found = step.push(tangents)
        except Exception as error:
            failures[step.number] = said(error)
            continue
        moving |= {(step.number, nr): each for nr, each in enumerate(found) if nr in step.outputs}
    return {edge: in_pairs(tangent) for edge, tangent in moving.items()}, failures


def _plain(value: Any) -> np.ndarray:
    """A cotangent: JAX pairs `a + bi` with a tangent `x + yi` as `ax - by`, so that it gives dL/dx - i dL/dy;
    here it is what torch gives, dL/dx + i dL/dy."""
    return in_pairs(value, -1)


def _seeds(outputs: Sequence[Array]) -> list[Any]:
    """1 for one number; else random numbers, exact in every dtype and without a common factor."""
    random = np.random.default_rng(1)
    seeds = []
    for out in outputs:
        if len(outputs) == 1 and not out.shape:
            seeds.append(jnp.ones((), str(out.dtype)))
            continue
        entries = random.choice([1.0, 1.25, 1.5, 1.75], out.shape) * random.choice([-1.0, 1.0], out.shape)
        entries = entries[..., 0] + 1j * entries[..., 1] if out.complex else entries
        seeds.append(jnp.asarray(entries).astype(out.numbers.dtype))
    return seeds


def _gradients(func: Callable[..., Any], leaves: Sequence[Any], cotangents: Sequence[Any]) -> Sequence[Any]:
    outs, pull = jax.vjp(func, *leaves)
    return pull([c.astype(o.dtype) for c, o in zip(cotangents, outs, strict=True)])


def _walk(steps: Sequence[EquationStep], seeds: Mapping[Edge, Any]) -> None:
    """From the output back: each equation's own pullback at the cotangent that really arrived. Fills the
    steps in."""
    arrived = dict(seeds)
    for step in reversed(steps):
        parts = [arrived.get((step.number, nr)) for nr in range(len(step.events[0].outs))]
        if all(part is None for part in parts):  # nothing of it reaches an output
            step.passed.append((None,) * len(step.edges))
            continue
        step.received.append(tuple(None if part is None else _plain(part) for part in parts))
        if step.pull is None:
            step.passed.append((None,) * len(step.edges))
            continue
        cotangents = [_cotangent(out, part) for out, part in zip(step.events[0].outs, parts, strict=True)]
        try:
            passed = step.pull(cotangents)
        except Exception as error:
            step.failure = said(error)
            step.passed.append((None,) * len(step.edges))
            continue
        step.passed.append(tuple(map(_plain, passed)))
        if step.custom:
            _again(step, cotangents)
        for edge, part in zip(step.edges, passed, strict=True):
            if edge is not None:
                arrived[edge] = part if edge not in arrived else arrived[edge] + part


def _cotangent(out: Any, part: Any) -> Any:
    if not out.floating:
        return np.zeros(out.shape, jax.dtypes.float0)
    return jnp.zeros_like(out.numbers) if part is None else part


def _again(step: EquationStep, cotangents: Sequence[Any]) -> None:
    """A rule of the user's runs twice more: on the same, and on -2 times as much, which is told apart bit by
    bit."""
    assert step.pull is not None
    for factor in (1, -2):
        scaled = [c if c.dtype == jax.dtypes.float0 else c * factor for c in cotangents]
        try:
            passed = step.pull(scaled)
        except Exception as error:
            step.failure = said(error)
            return
        received = step.received[0]
        step.received.append(tuple(None if part is None else factor * part for part in received))
        step.passed.append(tuple(map(_plain, passed)))
