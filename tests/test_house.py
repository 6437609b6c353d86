"""The two sides stay apart, and nothing is imported that is not needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import gradproof

SOURCE = Path(gradproof.__file__).parent

# Who may never import what, by the names of modules; the reference side is independent of every engine.
FORBIDDEN = {
    "calculus": {"torch", "jax", "engines", "tape"},
    "arithmetic": {"torch", "jax", "engines", "tape"},
    "reference": {"torch", "jax", "engines", "tape"},
    "functions": {"torch", "jax", "engines", "tape"},
    "graph": {"torch", "jax", "engines", "tape"},
    "language": {"torch", "jax", "engines", "tape"},
    "lowering": {"torch", "jax", "engines", "tape"},
    "syntax": {"torch", "jax", "engines", "sympy", "flint"},
    "verdicts": {"torch", "jax", "engines", "tape"},
    "derivation": {"torch", "jax", "engines", "tape"},
    "explanation": {"torch", "jax", "engines", "tape"},
    "quiz": {"torch", "jax", "engines", "tape"},
    "blame": {"torch", "jax", "engines", "tape"},
    "enclosure": {"torch", "jax", "engines", "tape"},
    "trajectory": {"torch", "jax", "engines", "tape"},
    "optimizers": {"torch", "jax", "engines", "tape", "sympy", "flint"},
    "jax": {"engines"},
    "tape": {"jax", "engines", "calculus", "arithmetic", "reference", "enclosure", "verdicts"},
    "engines": {
        "sympy",
        "flint",
        "calculus",
        "arithmetic",
        "reference",
        "graph",
        "language",
        "lowering",
        "functions",
        "verdicts",
    },
}


def imported(source: str) -> set[str]:
    """Every part of every module name that a source imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            names.update((node.module or "").split("."))
            names.update(alias.name for alias in node.names)
    return names


def crossings(room: str, source: str) -> set[str]:
    return imported(source) & FORBIDDEN[room]


def rooms() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room in FORBIDDEN:
            found.append((room, path))
    return found


def test_the_two_sides_do_not_import_each_other() -> None:
    seen = rooms()
    assert {room for room, _ in seen} == set(FORBIDDEN)
    assert {str(path): crossings(room, path.read_text()) for room, path in seen if crossings(room, path.read_text())} == {}


def test_that_test_can_fail() -> None:
    assert crossings("reference", "import torch") == {"torch"}
    assert crossings("reference", "def f():\n    from torch.nn import functional") == {"torch"}
    assert crossings("calculus", "from .engines import torch") == {"torch", "engines"}
    assert crossings("engines", "from ..reference import evaluate") == {"reference"}


def modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_reference_runs_without_torch() -> None:
    code = (
        "import gradproof\n"
        "problem = gradproof.parse('loss = (w*x - y)**2', given={'x': 1.0, 'y': 2.0}, parameters={'w': 1.0})\n"
        "assert 'w = -2' in gradproof.explain(problem)"
    )
    assert "torch" not in modules_after(code)


def test_importing_gradproof_imports_nothing_heavy() -> None:
    assert modules_after("import gradproof, gradproof.cli").isdisjoint({"torch", "sympy", "flint", "numpy", "rich", "tabulate"})


def test_public_names_are_there() -> None:
    for name in gradproof.__all__:
        assert getattr(gradproof, name) is not None
    assert set(gradproof.__all__) <= set(dir(gradproof))


def test_collecting_an_expression_file_imports_no_engine(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('title = "t"\ngraph = "loss = w ** 2"\n[parameters]\nw = 1.0\n')
    arguments = [str(file), "--collect-only", "-qq", "-p", "no:cacheprovider", "--gradproof-engine", "all"]
    modules = modules_after(f"import pytest\nassert pytest.main({arguments}) == 0")
    assert "gradproof.files" in modules and modules.isdisjoint({"torch", "jax", "autograd", "tinygrad"})


def test_a_function_is_checked_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "t.py"
    file.write_text("import torch\ndef f(): return torch.tanh, torch.ones(2, requires_grad=True)\n")
    assert "torch" not in modules_after(f"from gradproof.cli import main\nassert main(['check', {str(file) + ':f'!r}]) == 0")
