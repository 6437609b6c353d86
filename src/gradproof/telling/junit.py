"""JUnit XML, as CI systems read it: a test suite a report, a test case a finding.

True to the schema of Jenkins (junit-10.xsd), which is strict about attributes: a file is told on the suite,
and a line in the text of the failure. `wrong` is a failure. `failed`, `undecided` and `unsupported` are
errors and not `skipped`, because CI systems show a skipped case as green, and only what was compared can
pass.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import Failure
from .checked import page_of
from .page import Comparison
from .text import told

if TYPE_CHECKING:
    from ..report import Report

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """The reports as one XML text, in ASCII so that every encoding holds it; who could not be read is an
    error."""
    root = ET.Element("testsuites", name="gradproof")
    root.extend(_suite(report) for report in reports)
    root.extend(_unread(target, message) for target, message in errors)
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", f"{sum(report.seconds for report in reports):.3f}")
    ET.indent(root)
    return ET.tostring(root, encoding="us-ascii", xml_declaration=True).decode("ascii")


def _suite(report: Report) -> ET.Element:
    suite = _named("testsuite", f"{report.target} ({report.engine}, {report.dtype})")
    properties = ET.SubElement(suite, "properties")
    for name in ("title", "engine", "dtype", "verdict"):
        ET.SubElement(properties, "property", name=name, value=_sayable(getattr(report, name)))
    page = page_of(report)
    seen: Counter[str] = Counter()
    for compared in page.comparisons:
        name = f"{compared.kind}: {compared.subject}"
        seen[name] += 1
        suite.append(_case(report, compared, name if seen[name] == 1 else f"{name} ({seen[name]})"))
    if not page.comparisons:
        case = _named("testcase", "anything compared", report.target)
        suite.append(_with(case, "error", "undecided", "nothing was compared"))
    if report.expected:
        case = _named("testcase", "as the file expects", report.target)
        suite.append(case if report.ok else _with(case, "failure", "expectation", page.headline))
    return _counted(suite, report.target, report.seconds)


def _case(report: Report, compared: Comparison, name: str) -> ET.Element:
    case = _named("testcase", name, report.target)
    where = compared.place or _line(report, compared)
    text = "\n".join([*([where] if where else []), *told(compared)])
    if compared.verdict.ok:
        if compared.note:  # a kink, or what the file expects: told, and no failure
            ET.SubElement(case, "system-out").text = _sayable(text)
        return case
    message = f"{compared.verdict}: {compared.name}" + (f": {compared.note}" if compared.note else "")
    return _with(
        case, "failure" if compared.verdict.word == "wrong" else "error", compared.verdict.word, message, text
    )


def _line(report: Report, compared: Comparison) -> str:
    """Where a file's node stands, or nothing."""
    lines = report.problem.statements if report.problem else ()
    there = (str(line.place) for line in lines if line.name == compared.node)
    return next(there, report.target if report.problem else "")


def _unread(target: str, message: str) -> ET.Element:
    suite = _named("testsuite", target)
    case = ET.SubElement(suite, "testcase", name="can be read", classname=_class(target))
    _with(case, "error", "input", message, message)
    return _counted(suite, target, 0.0)


def _counted(suite: ET.Element, target: str, seconds: float) -> ET.Element:
    for key, path in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error")):
        suite.set(key, str(len(suite.findall(path))))
    suite.set("skipped", "0")
    suite.set("time", f"{seconds:.3f}")
    suite.set("file", _sayable(target))
    return suite


def _named(tag: str, name: str, target: str = "") -> ET.Element:
    element = ET.Element(tag, name=_sayable(name))
    if target:
        element.set("classname", _class(target))
    return element


def _with(case: ET.Element, kind: str, type_: str, message: str, text: str = "") -> ET.Element:
    ET.SubElement(case, kind, type=type_, message=_sayable(message)).text = _sayable(text) or None
    return case


def _class(target: str) -> str:
    """A target as the dotted name by which CI systems group.

    >>> _class("expressions/ols.toml"), _class("docs/examples.py:swish")
    ('expressions.ols', 'docs.examples.swish')
    """
    return (
        _sayable(re.sub(r"[/\\:]+", ".", re.sub(r"\.toml$|\.py(?=:|$)", "", target)).strip("."))
        or "gradproof"
    )


def _sayable(text: str) -> str:
    """Without the characters that XML cannot hold, not even escaped."""
    return _NOT_XML.sub("", text)
