"""gradproof: an exact oracle for gradients.

>>> import gradproof
>>> problem = gradproof.parse("loss = (w*x - y)**2", given={"x": 1.0, "y": 2.0}, parameters={"w": 1.0})
>>> report = gradproof.check(problem)
>>> report.ok, report.verdict.value
(True, 'exact')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assertions import assert_gradients
    from .descent import check_descent, descend
    from .descent_steps import DescentReport
    from .engines.own import engine
    from .errors import EngineError, GradproofError, GraphError, InputError
    from .files import Problem, load, parse
    from .oracle import Report, check
    from .report.explanation import explain
    from .steps import GradcheckError, check_function, gradcheck, register_formula
    from .verdicts import Finding, Verdict

__version__ = "0.1.0"

# Where each public name lives; it is imported when it is used, so that `import gradproof` costs nothing.
_HOMES = {
    "engine": "engines.own",
    "assert_gradients": "assertions",
    "EngineError": "errors", "GradproofError": "errors", "GraphError": "errors", "InputError": "errors",
    "Problem": "files", "load": "files", "parse": "files",
    "DescentReport": "descent_steps", "check_descent": "descent", "descend": "descent",
    "Report": "oracle", "check": "oracle",
    "explain": "report.explanation",
    "GradcheckError": "steps", "check_function": "steps", "gradcheck": "steps", "register_formula": "steps",
    "Finding": "verdicts", "Verdict": "verdicts",
}  # fmt: skip

__all__ = [
    "DescentReport", "EngineError", "Finding", "GradcheckError", "GradproofError", "GraphError", "InputError", "Problem",
    "Report", "Verdict", "__version__", "assert_gradients", "check", "check_descent", "check_function", "descend", "engine",
    "explain", "gradcheck", "load", "parse", "register_formula",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext gradproof`: the cell magic `%%gradproof`."""
    import_module(".notebook", __name__).register(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
