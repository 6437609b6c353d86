"""HTML pages, opened in a browser: nothing is fetched, nothing is broken, and everybody can read them."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

import gradproof
from conftest import ROOT
from gradproof import Report, check, check_function, load, parse
from gradproof.causes import Raised
from gradproof.cli import main
from gradproof.telling import html, markdown
from gradproof.telling.drawing import MAX_NODES, drawing
from gradproof.telling.heat import blocks, pictures
from gradproof.telling.page import Tensor

EXPRESSIONS = sorted((ROOT / "expressions").glob("*.toml"))
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = "<script>document.title='taken'</script> | ` $x$ \" ' &amp; " + "long" * 1250


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )
    if found is None:
        pytest.skip("pages are opened in a browser, and there is none: install chromium")
    with sync_playwright() as running:
        launched = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    main(
        [
            "report",
            *map(str, EXPRESSIONS),
            str(ROOT / "docs/examples.py:swish"),
            "--format",
            "html",
            "--output",
            str(folder),
        ]
    )
    logistic, perceptron = (
        str(ROOT / f"expressions/{name}.toml") for name in ("logistic_regression", "perceptron")
    )
    main(["descend", logistic, "--steps", "5", "--format", "html", "--output", str(folder / "descent.html")])
    main(["explain", perceptron, "--format", "html", "--output", str(folder / "explanation.html")])
    return folder


class Opened:
    """A page with what the browser complained of and asked for."""

    def __init__(
        self, browser: Browser, path: Path, scheme: str = "light", viewport: dict[str, int] = WIDE
    ) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page: Page = browser.new_page(color_scheme=scheme, viewport=viewport)  # type: ignore[arg-type]
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()

    def script(self, code: str) -> Any:
        return self.page.evaluate(code)


# In one call: what is wider than the window, drawings that are not there or stick out, and fractions whose
# parts do not stand one above the other (elements that a browser does not know stand side by side).
BROKEN = """() => {
  const width = document.documentElement.clientWidth;
  const drawn = [...document.querySelectorAll('svg.graph')].map(svg => svg.getBoundingClientRect());
  const fractions = [...document.querySelectorAll('mfrac')].map(m => [...m.children].map(c =>
    c.getBoundingClientRect()));
  return {
    wide: Math.max(0, document.documentElement.scrollWidth - width),
    drawings: drawn.filter(box => box.width <= 100 || box.right > width).length,
    fractions: fractions.filter(([a, b]) => a.bottom > b.top + 2).length,
  };
}"""


def test_every_page_is_whole_and_asks_for_nothing(browser: Browser, site: Path) -> None:
    """All of them where room is short, in one window; every fifth where there is room too."""
    pages = sorted(site.glob("*.html"))
    assert len(pages) == len(EXPRESSIONS) + 4
    for viewport, some in ((NARROW, pages), (WIDE, pages[::5])):
        with Opened(browser, some[0], viewport=viewport) as opened:
            for path in some:
                opened.requests.clear()
                opened.page.goto(path.as_uri())
                assert opened.requests == [path.as_uri()], path.name
                assert not opened.complaints, (path.name, opened.complaints)
                found = opened.script(BROKEN)
                assert found == {"wide": 0, "drawings": 0, "fractions": 0}, (path.name, viewport)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_numbers_of_the_flagship_are_seen_without_scrolling(
    browser: Browser, site: Path, scheme: str
) -> None:
    for viewport in (WIDE, {"width": 400, "height": 800}):
        with Opened(browser, site / "ols.html", scheme, viewport) as opened:
            answer = opened.page.locator("table").first
            assert answer.locator("tbody td").all_text_contents() == ["1", "-2", "-2", "0", "✓ exact"]
            for cell in answer.locator("th, td").all():
                box = cell.bounding_box()
                assert box is not None and box["y"] + box["height"] <= viewport["height"]
                assert box["x"] + box["width"] <= viewport["width"]


def test_a_large_tensor_is_a_picture_with_a_text(browser: Browser, tmp_path: Path) -> None:
    report = check(
        parse("loss = sum(sin(W))", parameters={"W": [[0.01 * i * j for j in range(70)] for i in range(9)]})
    )
    (tmp_path / "a.html").write_text(report.to_html())
    with Opened(browser, tmp_path / "a.html", viewport=NARROW) as opened:
        drawn = opened.page.locator("svg.heat")
        assert drawn.count() == 4
        for one in drawn.all():
            view = [float(n) for n in (one.get_attribute("viewBox") or "").split()]
            assert view[2] <= 49 and view[3] <= 49  # of larger blocks their worst entry
        told = [one.get_attribute("aria-label") for one in opened.page.get_by_role("img").all()]
        assert sum("the darkest are ±" in (text or "") for text in told) == 2
        assert sum("the worst, " in (text or "") for text in told) == 2
        assert opened.script(BROKEN)["wide"] == 0 and not opened.complaints


def test_every_block_tells_its_worst_entry_and_holds_the_mark() -> None:
    values = np.zeros((100, 7))
    values[57, 3] = -2.0
    cells = blocks(values)
    assert cells.shape == (48, 7) and cells.min() == -2 and (cells != 0).sum() == 1
    tensor = Tensor("w", values, values, np.abs(values))
    assert tensor.worst == (57, 3)
    row = int(np.flatnonzero(cells[:, 3])[0])
    assert all(f'class="worst" x="3" y="{row}"' in drawn for _, drawn in pictures(tensor))


@pytest.mark.parametrize("shape", [(0,), (1,), (200,), (3, 0), (2, 3, 4), (70, 70), (2, 3, 5, 7)], ids=str)
def test_tensors_of_every_shape_are_drawn(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=float).reshape(shape) - 3
    for ulp in (np.abs(values), np.full(shape, np.nan), np.full(shape, np.inf), None):
        for _, drawn in pictures(Tensor("w", values, values, ulp)):
            assert "nan" not in drawn and ElementTree.fromstring(drawn).tag.endswith("svg")


def test_the_keyboard_reaches_every_control(browser: Browser, site: Path) -> None:
    for name in ("index.html", "where_trap.html"):
        with Opened(browser, site / name) as opened:
            wanted = opened.script("document.querySelectorAll('a, button, input, [tabindex=\"0\"]').length")
            reached = opened.script("[]")
            for _ in range(wanted + 5):
                opened.page.keyboard.press("Tab")
                here = opened.script(
                    "(() => { const all = [...document.querySelectorAll('a, button, input, "
                    '[tabindex="0"]\')];'
                    " return all.indexOf(document.activeElement); })()"
                )
                reached.append(here)
            assert {*range(wanted)} <= {*reached}, name


def test_what_is_pointed_at_is_told(browser: Browser, site: Path) -> None:
    with Opened(browser, site / "ols.html") as opened:
        box = opened.page.locator("svg.graph g.box", has_text="l").first
        tip = box.locator(".tip")
        assert tip.evaluate("tip => getComputedStyle(tip).visibility") == "hidden"
        box.focus()
        assert tip.evaluate("tip => getComputedStyle(tip).visibility") == "visible"
        assert "ulp" in (tip.text_content() or "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "name",
    [
        "index",
        "ols",
        "perceptron",
        "where_trap",
        "abs_at_zero",
        "examples.py-swish",
        "descent",
        "explanation",
    ],
)
def test_an_accessibility_check_finds_nothing_serious(
    browser: Browser, site: Path, name: str, scheme: str
) -> None:
    with Opened(browser, site / f"{name}.html", scheme) as opened:
        found = Axe().run(opened.page).response["violations"]
        serious = [
            (v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")
        ]
        assert not serious


def test_tables_sort_and_the_index_is_searched(browser: Browser, site: Path) -> None:
    with Opened(browser, site / "index.html") as opened:
        rows = opened.page.locator("#index tbody tr:visible")
        assert rows.count() == len(EXPRESSIONS) + 1
        assert "wrong" in (rows.first.text_content() or "")  # what is not as it should be comes first
        opened.page.fill("#search", "trap zero")
        assert (
            opened.page.locator("#found").text_content() == f"{rows.count()} of {len(EXPRESSIONS) + 1} shown"
        )
        assert 0 < rows.count() < 5
        opened.page.fill("#search", "")
        heads = opened.page.locator("#index thead button")
        heads.nth(2).click()
        titles = opened.script("[...document.querySelectorAll('#index tbody a')].map(a => a.textContent)")
        assert (
            titles == sorted(titles, key=lambda title: opened.script(f"{title!r}.toLowerCase()"))
            or titles[0] < titles[-1]
        )
        opened.page.locator("#index tbody a").first.click()
        assert opened.page.locator("p.verdict").count() == 1


def test_a_page_reads_without_its_script(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "ols.html").as_uri())
    assert "verified: 9 comparisons, all exact" in (page.text_content("p.verdict") or "")
    assert "2*x*(w*x - y)" not in page.inner_text("main")  # it is a formula
    assert page.locator("math").count() > 10
    context.close()


def hostile() -> Report:
    report = check(
        parse(
            "a = 3 * sum(where((x < 1) | (x > 2), x, x**2))\nloss = sin(a) + a", parameters={"x": [0.5, 1.5]}
        )
    )
    findings = tuple(
        replace(finding, causes=(Raised(HOSTILE),), place=HOSTILE) for finding in report.findings
    )
    assert report.problem is not None
    return replace(
        report,
        title=HOSTILE,
        target=HOSTILE,
        findings=findings,
        problem=replace(report.problem, title=HOSTILE, teaches=HOSTILE),
    )


def test_no_text_can_script_or_break_a_page(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(html.render([hostile(), hostile()], [(HOSTILE, HOSTILE)]))
    with Opened(browser, path, viewport=NARROW) as opened:
        assert opened.script("document.title") != "taken"
        assert opened.script("document.querySelectorAll('script').length") == 1
        assert not opened.complaints
        assert opened.script("document.documentElement.scrollWidth") <= NARROW["width"]


def test_no_text_can_break_a_markdown_page() -> None:
    page = markdown.page(hostile())
    assert "<script" not in page
    rows = [line for line in page.splitlines() if line.startswith("|") and "what does not pass" not in line]
    assert rows
    assert all(line.endswith("|") for line in rows)


# The drawing


@pytest.mark.parametrize("path", EXPRESSIONS, ids=lambda path: path.stem)
def test_a_drawing_shows_every_name_and_read_and_no_boxes_meet(path: Path) -> None:
    problem = load(path)
    picture = drawing(problem)
    tree = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    boxes = [group for group in tree.iter(f"{space}g") if (group.get("class") or "").startswith("box")]
    edges = [group for group in tree.iter(f"{space}g") if (group.get("class") or "").startswith("edge")]
    from gradproof.proof.slopes import fused

    graph = fused(problem.graph)
    assert len(boxes) == len(graph.leaves) + len(graph.nodes)
    assert len(edges) == sum(len({read.parent for read in node.reads}) for node in graph.nodes)
    places = [
        {key: float(group[0].get(key, "nan")) for key in ("x", "y", "width", "height")} for group in boxes
    ]
    for n, a in enumerate(places):
        for b in places[n + 1 :]:
            apart = (
                a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
                or a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
            )  # fmt: skip
            assert apart


def test_the_wrong_node_is_marked_by_more_than_a_colour() -> None:
    problem = load(ROOT / "expressions/where_trap.toml")
    tree = ElementTree.fromstring(drawing(problem, check(problem)))
    marked = [
        group
        for group in tree.iter()
        if (group.get("class") or "").endswith(" bad") and "box" in group.get("class", "")
    ]
    assert len(marked) == 1
    assert "✗ wrong" in "".join(marked[0].itertext())


def test_a_graph_too_large_to_look_at_is_not_drawn() -> None:
    lines = "\n".join(f"a{n + 1} = sin(a{n}) + a{n}" for n in range(MAX_NODES))
    assert drawing(parse(f"{lines}\nloss = a{MAX_NODES}", parameters={"a0": 1.0})) == ""


def test_a_function_has_a_page(tmp_path: Path) -> None:
    import torch

    report = check_function(torch.tanh, torch.ones(2, requires_grad=True))
    assert "TanhBackward0" in report.to_html()
    assert gradproof.check(load(EXPRESSIONS[0])).to_html().startswith("<!doctype html>")
