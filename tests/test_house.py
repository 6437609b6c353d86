"""The two sides stay apart, and nothing is imported that is not needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import gradproof

SOURCE = Path(gradproof.__file__).parent
Sources = dict[str, str]  # of each module its text

GROUND = ("errors", "dtypes", "display", "verdict", "causes", "functions", "packing")
ENGINES = ("torch", "jax", "jaxlib", "autograd", "tinygrad")
RECORDER = tuple(
    f"torch.{name}"
    for name in """definitions insides lowering memory names operations outputs recorder recording resampling
    state tape trail writing fourier""".split()
)

# What a room may reach of ours, by whatever way, and which libraries it may never reach. A sceptic reads
# `proof` and `judging`.
MAY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys(GROUND, (GROUND, (*ENGINES, "sympy", "flint"))),
    "proof": ((*GROUND, "proof"), ENGINES),
    "judging": ((*GROUND, "proof", "judging"), ENGINES),
    "judging.witness": ((*GROUND, "proof", "judging.witness"), ENGINES),
    "language": ((*GROUND, "proof", "language"), ENGINES),
    "language.syntax": ((*GROUND, "language.syntax"), (*ENGINES, "sympy", "flint")),
    "engines": ((*GROUND, "engines", "targets", "language.syntax"), ("sympy", "flint")),
    "telling": ((*GROUND, "proof", "judging", "language", "telling", "report", "exact", "descent",
                 "oracle", "seconds", "assertions", "engines", "targets"), ()),
    "telling.derivation": ((*GROUND, "proof", "telling.derivation", "telling.notation"), ENGINES),
    "report": ((*GROUND, "proof", "language", "telling.derivation", "telling.notation", "report"), ENGINES),
    "exact": ((*GROUND, "proof", "language", "exact"), ENGINES),
    "quiz": ((*GROUND, "proof", "language", "telling", "report", "quiz"), ENGINES),
    "descent.optimizers": ((*GROUND, "language.syntax", "descent.optimizers"), (*ENGINES, "sympy", "flint")),
    "descent.trajectory":
        ((*GROUND, "proof", "language", "descent.optimizers", "descent.trajectory"), ENGINES),
    **dict.fromkeys(RECORDER,
        ((*GROUND, "proof.graph", "proof.functions", "language", *RECORDER), ("jax", "flint"))),
}  # fmt: skip


def sources() -> Sources:
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts).removesuffix("__init__").removesuffix(".")] = path.read_text()
    return found


def imports(name: str, text: str, known: Sources) -> set[str]:
    """What a module imports, anywhere in it and for types too: modules of ours, and libraries by their first
    name."""
    package = name if any(other.startswith(f"{name}.") for other in known) else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] + "!" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0] + "!")
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".") if package else []
            above = above[: len(above) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                found.add(inner if inner in known else base)
    return found - {name, ""}


def graph_of(known: Sources) -> dict[str, set[str]]:
    return {name: imports(name, text, known) for name, text in known.items()}


def ways(graph: dict[str, set[str]], name: str) -> dict[str, list[str]]:
    """Everything that a module reaches, with the way there."""
    found = {name: [name]}
    waiting = [name]
    while waiting:
        at = waiting.pop(0)
        for other in sorted(graph.get(at, ())):
            if other not in found:
                found[other] = [*found[at], other]
                waiting.append(other)
    return found


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def crossings(known: Sources) -> list[str]:
    graph, found = graph_of(known), []
    for name in sorted(known):
        rule = next((room for room in sorted(MAY, key=len, reverse=True) if within(name, (room,))), None)
        if rule is None:
            continue
        ours, never = MAY[rule]
        for other, way in ways(graph, name).items():
            wrong = other.removesuffix("!") in never if other.endswith("!") else not within(other, ours)
            if wrong:
                found.append(" > ".join(way))
    return found


def circles(known: Sources) -> list[str]:
    graph = graph_of(known)
    return [
        name
        for name in sorted(known)
        if any(name in ways(graph, other) for other in graph[name] if other in known)
    ]


def private(known: Sources) -> list[str]:
    """Names with an underscore that another module uses, imported or by the module's own name."""
    found = []
    for name, text in sorted(known.items()):
        tree = ast.parse(text)
        modules = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                found += [
                    f"{name}: {alias.name}"
                    for alias in node.names
                    if alias.name.startswith("_") and alias.name[1] != "_"
                ]
                modules |= {alias.asname or alias.name for alias in node.names if alias.name.islower()}
        for node in ast.walk(tree):
            of_module = (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in modules
            )
            if of_module and hidden(node.attr):
                found.append(f"{name}: {node.value.id}.{node.attr}")
    return found


def hidden(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_every_room_keeps_to_what_stands_below_it() -> None:
    known = sources()
    assert all(any(within(name, (room,)) for name in known) for room in MAY)
    assert crossings(known) == []


def test_there_are_no_circles_and_private_names_stay_at_home() -> None:
    assert circles(sources()) == []
    assert private(sources()) == []


PLANTED = {
    "proof.graph": "def f():\n    from ..errors import place",
    "errors": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .display import Displayed",
    "display": "def f():\n    import torch.nn as nn",
}


def test_the_guard_sees_what_is_two_steps_deep_inside_a_function_and_for_types() -> None:
    found = crossings({**sources(), **PLANTED})
    assert "proof.graph > errors > display > torch!" in found
    assert any(line.startswith("judging.judge > ") and line.endswith("display > torch!") for line in found)
    assert "verdict > oracle" in crossings({**sources(), "verdict": "from . import oracle"})
    assert "engines.torch > proof.walk" in crossings(
        {**sources(), "engines.torch": "from ..proof.walk import evaluate"}
    )


def test_the_guard_sees_circles_and_private_names() -> None:
    known = {
        "a": "from .b import x",
        "b": "def f():\n    from . import c",
        "c": "from . import a",
        "d": "from . import a",
    }
    assert circles(known) == ["a", "b", "c"]
    known = {
        "a": "_x = 1\n__version__ = ''",
        "b": "from .a import _x, __version__",
        "c": "from . import a\na._x",
    }
    assert private(known) == ["b: _x", "c: a._x"]


def modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_reference_runs_without_torch() -> None:
    code = (
        "import gradproof\n"
        "problem = gradproof.parse('loss = (w*x - y)**2', given={'x': 1.0, 'y': 2.0}, parameters={'w': "
        "1.0})\n"
        "assert 'w = -2' in gradproof.explain(problem)"
    )
    assert "torch" not in modules_after(code)


def test_importing_gradproof_imports_nothing_heavy() -> None:
    assert modules_after("import gradproof, gradproof.cli").isdisjoint(
        {"torch", "sympy", "flint", "numpy", "rich", "tabulate"}
    )


def test_public_names_are_there() -> None:
    for name in gradproof.__all__:
        assert getattr(gradproof, name) is not None
    assert set(gradproof.__all__) <= set(dir(gradproof))


def test_collecting_an_expression_file_imports_no_engine(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('title = "t"\ngraph = "loss = w ** 2"\n[parameters]\nw = 1.0\n')
    arguments = [str(file), "--collect-only", "-qq", "-p", "no:cacheprovider", "--gradproof-engine", "all"]
    modules = modules_after(f"import pytest\nassert pytest.main({arguments}) == 0")
    assert "gradproof.language.files" in modules and modules.isdisjoint(
        {"torch", "jax", "autograd", "tinygrad"}
    )


def test_a_function_is_checked_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "t.py"
    file.write_text("import torch\ndef f(): return torch.tanh, torch.ones(2, requires_grad=True)\n")
    assert "torch" not in modules_after(
        f"from gradproof.cli import main\nassert main(['check', {str(file) + ':f'!r}]) == 0"
    )
