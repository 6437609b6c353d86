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

from ..verdict import Verdict
from . import Failure
from .text import told
from .words import headline, name_of, place

if TYPE_CHECKING:
    from ..report import Report
    from ..verdict import Finding

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
    seen: Counter[str] = Counter()
    for finding in report.findings:
        name = f"{finding.kind}: {name_of(finding).removeprefix('chained gradient of ')}"
        seen[name] += 1
        suite.append(_case(report, finding, name if seen[name] == 1 else f"{name} ({seen[name]})"))
    if not report.findings:
        case = _named("testcase", "anything compared", report.target)
        suite.append(_with(case, "error", "undecided", "nothing was compared"))
    if report.expected:
        case = _named("testcase", "as the file expects", report.target)
        suite.append(case if report.ok else _with(case, "failure", "expectation", headline(report)))
    return _counted(suite, report.target, report.seconds)


def _case(report: Report, finding: Finding, name: str) -> ET.Element:
    case = _named("testcase", name, report.target)
    where = finding.place or _line(report, finding)
    text = "\n".join([*([where] if where else []), *told(finding)])
    if finding.verdict.passes or report.ok:
        if finding.note:  # a kink, or what the file expects: told, and no failure
            ET.SubElement(case, "system-out").text = _sayable(text)
        return case
    at = f"{name_of(finding)}{place(finding.index)}"
    message = f"{finding.verdict.value}: {at}" + (f": {finding.note}" if finding.note else "")
    kind = "failure" if finding.verdict is Verdict.WRONG else "error"
    return _with(case, kind, finding.verdict.value, message, text)


def _line(report: Report, finding: Finding) -> str:
    """Where a file's node stands, or nothing."""
    if report.problem is None:
        return ""
    return next(
        (str(line.place) for line in report.problem.statements if line.name == finding.node), report.target
    )


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
