"""For tests that are classes of `unittest`: a mixin whose assertions are checks of gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .report import Report


class _TestCase(Protocol):
    gradient_options: Mapping[str, Any]

    def fail(self, msg: Any = None) -> Any: ...


class GradientTests:
    """Mix it into a `unittest.TestCase`:

        class Layers(GradientTests, unittest.TestCase):
            gradient_options = {"mode": "both"}

            def test_layer(self):
                self.assertGradients(layer, x)

    `gradient_options` are those of `check_function` for each of its assertions.
    """

    gradient_options: Mapping[str, Any] = MappingProxyType({})

    def assertGradients(self: _TestCase, func: Callable[..., Any], *inputs: Any, **options: Any) -> Report:
        """Assert that the gradients of a torch function are right at these inputs; the report is given back.

        Raises `AssertionError` with the report where something does not pass, and `InputError` for bad
        options.
        """
        from .torch.check import check_function

        report = check_function(func, *inputs, **{**self.gradient_options, **options})
        if not report.ok:
            self.fail(report.to_text())
        return report

    def assertGradcheck(self: _TestCase, func: Callable[..., Any], inputs: Any, **options: Any) -> None:
        """`gradproof.gradcheck`, asserted: for tests that call torch's. Raises `AssertionError`."""
        _asserted(self, "gradcheck", func, inputs, options)

    def assertGradgradcheck(self: _TestCase, func: Callable[..., Any], inputs: Any, **options: Any) -> None:
        """`gradproof.gradgradcheck`, asserted. Raises `AssertionError`."""
        _asserted(self, "gradgradcheck", func, inputs, options)


def _asserted(
    test: _TestCase, name: str, func: Callable[..., Any], inputs: Any, options: Mapping[str, Any]
) -> None:
    from .torch import gradcheck

    try:
        getattr(gradcheck, name)(func, inputs, **options)
    except gradcheck.GradcheckError as error:
        test.fail(str(error))
