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

from . import display

if TYPE_CHECKING:
    from .assertions import assert_gradients
    from .descent.loop import check_descent, descend
    from .descent.report import DescentReport
    from .engines.own import engine
    from .errors import EngineError, GradproofError, GraphError, InputError
    from .language.files import Problem, load, parse
    from .oracle import check
    from .report import Report
    from .telling.explained import explain
    from .torch.check import check_function, register_formula
    from .torch.declared import implicit, surrogate
    from .torch.gradcheck import GradcheckError, gradcheck, gradgradcheck
    from .verdict import Finding, Verdict

__version__ = "0.1.0"

# Where each public name lives; it is imported when it is used, so that `import gradproof` costs nothing.
_HOMES = {
    "engine": "engines.own",
    "assert_gradients": "assertions",
    "EngineError": "errors", "GradproofError": "errors", "GraphError": "errors", "InputError": "errors",
    "Problem": "language.files", "load": "language.files", "parse": "language.files",
    "DescentReport": "descent.report", "check_descent": "descent.loop", "descend": "descent.loop",
    "Report": "report", "check": "oracle",
    "explain": "telling.explained",
    "check_function": "torch.check", "register_formula": "torch.check",
    "implicit": "torch.declared", "surrogate": "torch.declared",
    "GradcheckError": "torch.gradcheck", "gradcheck": "torch.gradcheck", "gradgradcheck": "torch.gradcheck",
    "Finding": "verdict", "Verdict": "verdict",
}  # fmt: skip

# Records below know nothing of how they are shown.
display.telling = lambda: import_module(".telling", __name__)

__all__ = [
    "DescentReport", "EngineError", "Finding", "GradcheckError", "GradproofError", "GraphError", "InputError",
    "Problem", "Report", "Verdict", "__version__", "assert_gradients", "check", "check_descent",
    "check_function", "descend", "engine", "explain", "gradcheck", "gradgradcheck", "implicit", "load",
    "parse", "register_formula", "surrogate",
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
