"""The pytest plugin: expression files as tests, a fixture, a marker, and pages of what ran.

Nothing of gradproof, SymPy, torch or NumPy is imported before a test needs it: pytest loads this module in
every run of an environment that has gradproof installed, also where nobody uses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

    from gradproof import Finding, Problem, Report

FORWARD_AND_LOCAL = "forward-and-local"  # the name of the test that holds all but the parameters' gradients


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradproof", "gradproof: gradients against the calculus")
    group.addoption(
        "--gradproof-dtype",
        metavar="DTYPE",
        help="of expression files and of the gradproof fixture: float64, float32, bfloat16 or float16",
    )
    group.addoption(
        "--gradproof-engine",
        metavar="ENGINE",
        default="torch",
        help="the autograd that runs expression files (torch), or all installed",
    )
    group.addoption(
        "--gradproof-report",
        metavar="DIR",
        help="write a page of every check, in Markdown and HTML, and an index",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "gradproof(dtypes=[...]): run the test, which uses the gradproof fixture, once in each of these "
        "dtypes",
    )
    if config.option.gradproof_dtype is not None:
        try:
            _known(config.option.gradproof_dtype)
        except ValueError as error:
            raise pytest.UsageError(f"--gradproof-dtype: {error}") from None
    if config.option.gradproof_report is not None:
        folder = config.invocation_params.dir / config.option.gradproof_report
        # Absolute, also for the workers of pytest-xdist, who inherit options.
        config.option.gradproof_report = str(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(
                f"--gradproof-report: {folder} cannot be written to: {error.strerror}"
            ) from None
        config.pluginmanager.register(Pages(config, folder), Pages.NAME)


def _known(dtype: str) -> str:
    from gradproof.dtypes import dtype_named
    from gradproof.errors import InputError

    try:
        return dtype_named(dtype).name
    except InputError as error:
        raise ValueError(str(error)) from None


# Expression files


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker of pytest-xdist is given the folder to look in, whether or not somebody named it; so it is
    told."""
    node.workerinput["gradproof_files"] = _files_wanted(node.config)


def _files_wanted(config: pytest.Config) -> bool:
    """Only folders and files that were named are looked into, on the command line or under `testpaths`."""
    if hasattr(config, "workerinput"):
        return config.workerinput["gradproof_files"]
    return config.args_source is not pytest.Config.ArgsSource.INVOCATION_DIR


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".toml" and _files_wanted(parent.config) and _has_graph(file_path):
        return ExpressionFile.from_parent(parent, path=file_path)
    return None


def _has_graph(path: Path) -> bool:
    """Whether this is an expression file: TOML with a text called `graph` at its top.

    Of text that is not TOML, what stands above the first table tells, so that a bad file is not passed over
    in silence.
    """
    import tomllib

    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return False
    if "graph" not in text:
        return False
    try:
        return isinstance(tomllib.loads(text).get("graph"), str)
    except (ValueError, RecursionError):
        top = re.split(r"^[ \t]*\[", text, maxsplit=1, flags=re.MULTILINE)[0]
        return re.search(r"^[ \t]*[\"']?graph[\"']?[ \t]*=[ \t]*[\"']", top, re.MULTILINE) is not None


class RefutedError(AssertionError):
    """What does not pass; the message is the report's table."""


class ExpressionFile(pytest.File):
    """An expression file: a test for each parameter's gradient, and one for all the rest. An engine checks it
    once."""

    problem: Problem
    _reports: Mapping[str, Report] = MappingProxyType({})

    def collect(self) -> Iterable[ExpressionTest]:
        from gradproof import load
        from gradproof.errors import GradproofError

        try:
            self.problem = load(_shown(self.path))
        except GradproofError as error:
            raise self.CollectError(str(error)) from None
        asked = self.config.option.gradproof_engine
        for engine in _engines(asked):
            suffix = f"[{engine}]" if asked == "all" else ""
            yield ExpressionTest.from_parent(self, name=FORWARD_AND_LOCAL + suffix, engine=engine)
            for leaf in self.problem.graph.parameters:
                name = f"gradient[{leaf.name}]{suffix}"
                yield ExpressionTest.from_parent(self, name=name, engine=engine, parameter=leaf.name)

    def report(self, engine: str) -> Report:
        """The report of this file; the check runs when the first test asks for it."""
        if engine not in self._reports:
            from gradproof import check

            report = check(self.problem, engine=engine, dtype=self.config.option.gradproof_dtype)
            self._reports = {**self._reports, engine: report}
            _keep(self, report, f"{self.nodeid} {engine}")
        return self._reports[engine]


def _engines(asked: str) -> tuple[str, ...]:
    if asked != "all":
        return (asked,)
    from gradproof.engines import installed

    return installed()


def _shown(path: Path) -> Path:
    """As people would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class ExpressionTest(pytest.Item):
    """The chained gradient of one parameter; without a parameter, everything else that the report holds."""

    parent: ExpressionFile

    def __init__(self, *, engine: str, parameter: str | None = None, **rest: Any) -> None:
        super().__init__(**rest)
        self.engine = engine
        self.parameter = parameter

    def runtest(self) -> None:
        report = self.parent.report(self.engine)
        if report.ok:
            return
        from gradproof.telling.text import brief

        own = [finding for finding in report.findings if self._owns(finding)]
        bad = [finding for finding in own if not finding.verdict.passes]
        broken_promise = report.expected is not None and self.parameter is None
        if bad or broken_promise:
            raise RefutedError(brief(report, bad))
        if not own:  # nothing compared is not a pass
            raise RefutedError(f"{brief(report, [])}\n\n{self.name} was not compared")

    def _owns(self, finding: Finding) -> bool:
        parameters = {leaf.name for leaf in self.parent.problem.graph.parameters}
        of = finding.node if finding.kind == "gradient" and finding.node in parameters else None
        return of == self.parameter

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from gradproof.errors import GradproofError

        if isinstance(excinfo.value, RefutedError | GradproofError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.parent.name}: {self.name}"


# The fixture and the marker


class Gradproof:
    """What the `gradproof` fixture is: checks that assert, in the dtype and by the engine that were asked
    for.

    A dtype is asked for by the marker, or else by `--gradproof-dtype`; `dtype` is its name, and float64 where
    none was.
    """

    def __init__(self, node: pytest.Item, asked: str | None, engine: str) -> None:
        self._node = node
        self._asked = asked
        self.engine = engine

    @property
    def dtype(self) -> str:
        return self._asked or "float64"

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return getattr(torch, self.dtype)

    def check_function(self, func: Callable[..., Any], *inputs: Any, **options: Any) -> Report:
        """`gradproof.check_function`, asserted.

        Where a dtype was asked for, floating tensors among the inputs, and a module's own, are converted to
        it first; what else the function holds is its own affair, and it is an error if that makes it run in
        another dtype.
        """
        __tracebackhide__ = True
        import gradproof

        if self._asked is not None:
            cast = _Cast(self.torch_dtype)
            func, inputs = cast.function(func), tuple(cast.value(value) for value in inputs)
        report = self._asserted(gradproof.check_function(func, *inputs, **options))
        if self._asked not in (None, report.dtype):
            raise AssertionError(
                f"{report.title} ran in {report.dtype}, and {self._asked} was asked for; "
                "make its tensors with dtype=gradproof.torch_dtype"
            )
        return report

    def check(self, problem: Problem, **options: Any) -> Report:
        """`gradproof.check`, asserted. Where no dtype was asked for, the problem's own holds.

        Of several engines each is asserted, and the first one's report is returned.
        """
        __tracebackhide__ = True
        import gradproof

        asked = options.pop("engine", self.engine)
        engines = _engines(asked) if isinstance(asked, str) else (asked,)
        reports = [
            gradproof.check(problem, **{"engine": engine, "dtype": self._asked, **options})
            for engine in engines
        ]
        first, *_ = [self._asserted(report) for report in reports]
        return first

    def assert_gradients(
        self,
        problem: Problem | str,
        point: Mapping[str, Any] | None,
        gradients: Mapping[str, Any],
        **options: Any,
    ) -> Report:
        """`gradproof.assert_gradients`."""
        __tracebackhide__ = True
        import gradproof

        if self._asked is not None:
            options = {"dtype": self._asked, **options}
        try:
            report = gradproof.assert_gradients(problem, point, gradients, **options)
        except AssertionError as error:
            if (found := getattr(error, "report", None)) is not None:
                self._kept(found)
            raise
        self._kept(report)
        return report

    def _asserted(self, report: Report) -> Report:
        __tracebackhide__ = True
        self._kept(report)
        if not report.ok:
            raise AssertionError(report.to_text())
        return report

    def _kept(self, report: Report) -> None:
        _keep(self._node, report, self._node.nodeid)


class _Cast:
    """Floating tensors in another dtype; one that is given twice stays one."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.done: dict[int, torch.Tensor] = {}

    def value(self, value: Any) -> Any:
        import torch

        if isinstance(value, list | tuple | dict):
            return _rebuilt(value, self.value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dtype == self.dtype:
            return value
        if id(value) not in self.done:
            self.done[id(value)] = value.detach().to(self.dtype).requires_grad_(value.requires_grad)
        return self.done[id(value)]

    def function(self, func: Any) -> Any:
        """A module is copied: the test's own stays as it is."""
        import copy

        import torch

        if not isinstance(func, torch.nn.Module):
            return func
        held = [tensor for tensor in (*func.parameters(), *func.buffers()) if tensor.is_floating_point()]
        if all(tensor.dtype == self.dtype for tensor in held):
            return func
        return copy.deepcopy(func).to(self.dtype)


def _rebuilt(nest: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(nest, dict):
        return {key: function(value) for key, value in nest.items()}
    items = [function(value) for value in nest]
    return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)


@pytest.fixture
def gradproof(request: pytest.FixtureRequest) -> Gradproof:
    """Checks of gradients that assert: `check_function`, `check`, `assert_gradients`; `dtype` and
    `torch_dtype`."""
    option, asked = request.config.option, getattr(request, "param", None)
    if isinstance(asked, _Mistake):
        pytest.fail(f"{_MARKER}: {asked.message}", pytrace=False)
    return Gradproof(request.node, asked or option.gradproof_dtype, option.gradproof_engine)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("gradproof")
    if marker is None:
        return
    if "gradproof" in metafunc.fixturenames:
        metafunc.parametrize("gradproof", _dtypes(marker), indirect=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marker that can do nothing is this test's error. One of a class or module is for others, which use
    the fixture."""
    if "gradproof" not in getattr(item, "fixturenames", ()) and any(
        mark.name == "gradproof" for mark in item.own_markers
    ):
        pytest.fail(
            f"{_MARKER} is for a test that uses the fixture 'gradproof', and this one does not", pytrace=False
        )


_MARKER = "@pytest.mark.gradproof"


@dataclass(frozen=True)
class _Mistake:
    """What is wrong with a marker: told where its test is set up, so that all others run."""

    message: str

    def __str__(self) -> str:
        return "mistake"


def _dtypes(marker: pytest.Mark) -> list[str] | list[_Mistake]:
    dtypes = marker.kwargs.get("dtypes")
    if marker.args or set(marker.kwargs) != {"dtypes"} or not isinstance(dtypes, list | tuple) or not dtypes:
        return [_Mistake('expected dtypes=["float64", ...] and nothing else')]
    if not all(isinstance(dtype, str) for dtype in dtypes):
        return [_Mistake("expected the names of dtypes, as in 'float32'")]
    try:
        names = [_known(dtype) for dtype in dtypes]
    except ValueError as error:
        return [_Mistake(str(error))]
    return names if len(set(names)) == len(names) else [_Mistake("a dtype stands there twice")]


# Pages


class Pages:
    """The pages of `--gradproof-report`: written where a check ran, the index by whoever holds the terminal.

    Which pages there are travels with the tests' reports, as pytest-xdist carries any attribute of them: a
    worker that dies takes only its last test along.
    """

    NAME = "gradproof-pages"
    TITLE = "gradproof: what the tests checked"

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self.config = config
        self.folder = folder
        # By the page's name; of this process, until a test's report takes them.
        self.written: dict[str, dict[str, Any]] = {}
        self.pages: dict[str, dict[str, Any]] = {}
        self.unread: dict[str, str] = {}
        self.counts: dict[str, int] = {}

    def keep(self, test: str, report: Report) -> None:
        """Write the page of a report, under a name that is the same in every process and no other test's."""
        import hashlib

        from gradproof.output import write
        from gradproof.telling import html, markdown

        self.counts[test] = count = self.counts.get(test, 0) + 1
        stem = (
            re.sub(r"[^\w.-]+", "-", Path(report.target).name.removesuffix(".toml")).strip("-.")[:60]
            or "report"
        )
        name = f"{stem}-{hashlib.sha256(f'{test} {count}'.encode()).hexdigest()[:8]}.md"
        write(self.folder / name, markdown.page(report))
        write((self.folder / name).with_suffix(".html"), html.page(report))
        self.written[name] = {
            "ok": report.ok,
            "verdict": report.verdict.value,
            "title": report.title,
            "ran": f"{report.engine}, {report.dtype}",
            "test": test,
        }

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if self.written:
            report.gradproof_pages = dict(self.written)  # type: ignore[attr-defined] # any attribute is carried
            self.written.clear()
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.pages.update(getattr(report, "gradproof_pages", {}))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and report.nodeid.endswith(".toml"):
            self.unread[report.nodeid] = str(report.longrepr)

    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workerinput"):
            return
        from gradproof.output import write

        write(self.folder / "index.md", self._index())
        write(self.folder / "index.html", self._index_page())

    def _sorted(self) -> list[tuple[str, dict[str, Any]]]:
        return sorted(self.pages.items(), key=lambda entry: (entry[1]["ok"], entry[1]["test"], entry[0]))

    def _index_page(self) -> str:
        from gradproof.telling.html import Entry, listing
        from gradproof.telling.page import Verdict

        entries = [
            Entry(
                str(Path(name).with_suffix(".html")),
                page["title"],
                Verdict(page["verdict"], page["ok"]),
                page["ran"],
                page["test"],
            )
            for name, page in self._sorted()
        ]
        return listing(entries, sorted(self.unread.items()), self.TITLE)

    def _index(self) -> str:
        from gradproof.telling.markdown import escape, table

        pages = self._sorted()
        parts = [f"# {self.TITLE}\n"]
        parts.append(f"{sum(page['ok'] for _, page in pages)} of {len(pages)} as they should be.\n")
        rows = [
            [
                "✓" if page["ok"] else "✗",
                page["verdict"],
                f"[{escape(page['title'])}]({name})",
                escape(page["ran"]),
                escape(page["test"]),
            ]
            for name, page in pages
        ]
        parts.append(table(rows, ["", "verdict", "checked", "ran", "test"]) + "\n")
        if self.unread:
            parts.append("## Could not be read\n")
            parts.append(
                table(
                    [[escape(file), escape(why)] for file, why in sorted(self.unread.items())],
                    ["file", "why"],
                )
            )
        return "\n".join(parts) + "\n"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        count = "1 page" if len(self.pages) == 1 else f"{len(self.pages)} pages"
        terminalreporter.write_line(f"gradproof: {count} and an index in {self.folder}")


def _keep(node: pytest.Item | pytest.File, report: Report, test: str) -> None:
    pages: Pages | None = node.config.pluginmanager.get_plugin(Pages.NAME)
    if pages is not None:
        pages.keep(test, report)
