"""A graph as a drawing: layers from the leaves down to the output, nodes marked by verdict, local gradients
on the edges.

The layers are laid out by igraph, after Sugiyama, Tagawa and Toda (1981); texts are measured in columns, not
in a font.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING

from wcwidth import wcswidth

from ..proof.graph import Graph, Node
from ..proof.slopes import fused, local_gradient, written
from . import notation, number
from .templates import rendered
from .words import STYLES, SYMBOLS, name_of, shortened

if TYPE_CHECKING:
    from ..language.files import Problem
    from ..report import Report
    from ..verdict import Finding
    from .derivation import Derivation

MAX_NODES = 60  # that people can still look at
COLUMN, HEIGHT, LAYER, GAP, MARGIN = 7.6, 40.0, 96.0, 34.0, 14.0  # pixels
MAX_NAME, MAX_LABEL, MAX_TIP = 22, 20, 46  # columns
TIP_LINE = 17.0

_drawings = count(1)


@dataclass(frozen=True)
class Tip:
    """What is told of a node or an edge when it is pointed at or reached by the keyboard; in a box of its
    own."""

    lines: tuple[str, ...]
    x: float
    y: float
    width: float

    @property
    def height(self) -> float:
        return TIP_LINE * len(self.lines) + 12

    @property
    def title(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Box:
    """A leaf or a line; `x, y` is its centre."""

    name: str
    mark: str
    style: str
    shape: str
    x: float
    y: float
    width: float
    tip: Tip


@dataclass(frozen=True)
class Edge:
    """A read, through the places that the layout bends it at."""

    path: str
    label: str
    style: str
    x: float
    y: float
    tip: Tip


def drawing(shown: Problem | Graph, report: Report | None = None) -> str:
    """The graph as one `<svg>`, safe as it stands; empty for more than `MAX_NODES` nodes.

    With a report its nodes are marked by their worst verdict that is not inherited.
    """
    graph = fused(shown if isinstance(shown, Graph) else shown.graph)
    names = [*(leaf.name for leaf in graph.leaves), *(node.name for node in graph.nodes)]
    if len(names) > MAX_NODES:
        return ""
    widths = {name: max(_columns(_short(name, MAX_NAME)), 9) * COLUMN + 20 for name in names}
    reads = [
        (parent, node) for node in graph.nodes for parent in dict.fromkeys(read.parent for read in node.reads)
    ]
    places, paths = _laid_out(names, [(parent, node.name) for parent, node in reads], widths)
    right = max(x + widths[name] / 2 for name, (x, _) in places.items()) + MARGIN
    wide = max(right, MAX_TIP * COLUMN + 2 * MARGIN)
    shift = (wide - right) / 2
    places = {name: (x + shift, y) for name, (x, y) in places.items()}
    findings = report.findings if report is not None else ()
    boxes = [_box(name, graph, places[name], widths[name], findings, wide) for name in names]
    edges = [
        _edge(parent, node, [(x + shift, y) for x, y in path], findings, wide, active=parent in graph.active)
        for (parent, node), path in zip(reads, paths, strict=True)
    ]
    high = max(box.tip.y + box.tip.height for box in boxes) + MARGIN
    title = "The graph" if isinstance(shown, Graph) else f"The graph of {_short(shown.title, 60)}"
    # From the output back; what is drawn later lies above, so that no box hides a tip, which hangs below its
    # own.
    boxes.sort(key=lambda box: (-box.y, -box.x))
    return rendered(
        "drawing.svg.jinja",
        boxes=boxes,
        edges=edges,
        width=wide,
        height=high,
        title=title,
        box_height=HEIGHT,
        tip_line=TIP_LINE,
        id=f"graph{next(_drawings)}",
    )


Point = tuple[float, float]


def _laid_out(
    names: Sequence[str], reads: Sequence[tuple[str, str]], widths: Mapping[str, float]
) -> tuple[dict[str, Point], list[list[Point]]]:
    """The boxes' centres, and for each read the points that its line goes through."""
    import igraph  # its own import takes a while, and only a drawing needs it

    position = {name: n for n, name in enumerate(names)}
    layers = _layers(names, reads)
    chains: list[list[int]] = []  # for each read the vertices that it goes through, one a layer
    for parent, node in reads:
        start, end = position[parent], position[node]
        between = range(len(layers), len(layers) + layers[end] - layers[start] - 1)
        layers += range(layers[start] + 1, layers[end])
        chains.append([start, *between, end])
    links = [link for chain in chains for link in pairwise(chain)]
    layout = igraph.Graph(len(layers), links, directed=True).layout_sugiyama(
        layers=layers, hgap=max(widths.values()) + GAP, vgap=LAYER, maxiter=200
    )
    halves = [widths[names[n]] / 2 if n < len(names) else 0.0 for n in range(len(layers))]
    columns = _apart([x for x, _ in layout.coords], layers, halves)
    left = min(x - half for x, half in zip(columns, halves, strict=True))
    points = [
        (x - left + MARGIN, LAYER * layer + HEIGHT / 2 + MARGIN)
        for x, layer in zip(columns, layers, strict=True)
    ]
    paths = [[points[n] for n in chain] for chain in chains]
    return {name: points[n] for n, name in enumerate(names)}, paths


def _apart(columns: Sequence[float], layers: Sequence[int], halves: Sequence[float]) -> list[float]:
    """The places along each layer, where they are too near moved to the right: igraph knows of no widths."""
    placed = list(columns)
    for layer in set(layers):
        row = sorted((n for n, own in enumerate(layers) if own == layer), key=lambda n: columns[n])
        for before, n in pairwise(row):
            placed[n] = max(placed[n], placed[before] + halves[before] + halves[n] + GAP / 2)
    return placed


def _layers(names: Sequence[str], reads: Sequence[tuple[str, str]]) -> list[int]:
    """A leaf stands just above the first line that reads it, a line below all that it reads."""
    depth = dict.fromkeys(names, 0)
    for parent, node in reads:
        depth[node] = max(depth[node], depth[parent] + 1)
    made = {node for _, node in reads}
    for name in names:
        below = [depth[node] for parent, node in reads if parent == name]
        if name not in made and below:
            depth[name] = min(below) - 1
    return [depth[name] for name in names]


def _box(
    name: str, graph: Graph, place: Point, width: float, findings: Sequence[Finding], wide: float
) -> Box:
    leaf = next((leaf for leaf in graph.leaves if leaf.name == name), None)
    node = next((node for node in graph.nodes if node.name == name), None)
    own = [finding for finding in findings if finding.node == name]
    worst = max((f for f in own if not f.inherited), key=lambda f: f.verdict.severity, default=None)
    mark = f"{SYMBOLS[worst.verdict.value]} {worst.verdict.value}" if worst is not None else ""
    if not mark and leaf is not None:
        mark = "given" if leaf.given else "learned"
    told = (
        [notation.text(written(node)[0]) + " = " + notation.text(written(node)[1])]
        if node is not None
        else [name]
    )
    told += [_told(finding) for finding in own if finding.kind != "local"]
    shape = "line" if leaf is None else "given" if leaf.given else "learned"
    x, y = place
    style = STYLES.get(worst.verdict.value, "open") if worst is not None else "plain"
    return Box(
        _short(name, MAX_NAME), mark, style, shape, x, y, width, _tip(told, x, y + HEIGHT / 2 + 6, wide)
    )


def _edge(
    parent: str, node: Node, path: Sequence[Point], findings: Sequence[Finding], wide: float, *, active: bool
) -> Edge:
    """What goes to a given tensor has a local gradient that nobody asks for, and no label."""
    own = [
        finding
        for finding in findings
        if finding.kind == "local" and (finding.node, finding.wrt) == (node.name, parent)
    ]
    formula = notation.text(local_gradient(node, parent).formula)
    (x0, y0), *between, (x1, y1) = path
    ends = [(x0, y0 + HEIGHT / 2), *between, (x1, y1 - HEIGHT / 2 - 3)]
    line = " ".join(f"{'L' if n else 'M'}{x:.1f},{y:.1f}" for n, (x, y) in enumerate(ends))
    (ax, ay), (bx, by) = ends[-2:]
    x, y = ax + (bx - ax) * 0.36, ay + (by - ay) * 0.36  # nearer to the parent, where edges are further apart
    label = (
        formula
        if active and _columns(formula) <= MAX_LABEL and "δ" not in formula and "Σ" not in formula
        else ""
    )
    style = next((STYLES.get(f.verdict.value, "open") for f in own if not f.verdict.passes), "plain")
    told = [f"∂{node.name}/∂{parent} = {formula}" if active else f"{parent} is given", *map(_told, own)]
    return Edge(line, label, style, x, y, _tip(told, x, y + 12, wide))


def _told(finding: Finding) -> str:
    what = {"forward": "value", "gradient": "gradient"}.get(finding.kind, name_of(finding))
    numbers = f"exact {number(finding.exact)}, engine {number(finding.value)}, {number(finding.ulp, 3)} ulp"
    return f"{what}: {finding.verdict.value}; {numbers}"


def _tip(lines: Sequence[str], x: float, y: float, wide: float) -> Tip:
    shown = tuple(_short(line, MAX_TIP) for line in lines)
    width = max(map(_columns, shown)) * COLUMN * 0.92 + 16
    return Tip(shown, min(max(x - width / 2, 2), max(wide - width - 2, 2)), y, width)


def _columns(text: str) -> int:
    return max(wcswidth(text), len(text) // 2)  # -1 for what is not printable


def _short(text: str, columns: int) -> str:
    """In one line, without control characters, which XML has no words for."""
    return shortened("".join(c if c.isprintable() else "?" for c in " ".join(text.split())), columns)


# Mermaid, for Markdown


COLOURS = {
    "good": "#d3f0d8,stroke:#1a7f37", "told": "#fff3c4,stroke:#9a6700", "bad": "#ffd7d5,stroke:#cf222e",
}  # fmt: skip
MAX_MERMAID = 34  # letters of a label


def mermaid(derivation: Derivation, marks: Mapping[str, str]) -> str:
    """The graph in Mermaid's language: its nodes coloured by `marks`, a verdict a name, its edges carrying
    the local gradients."""
    graph = derivation.graph
    names = [leaf.name for leaf in graph.leaves] + [node.name for node in graph.nodes]
    ids = {name: f"n{n}" for n, name in enumerate(names)}
    lines = ["graph LR"]
    for leaf in graph.leaves:
        left, right = ('(["', '"])') if leaf.given else ('(("', '"))')
        lines.append(f"  {ids[leaf.name]}{left}{_label(leaf.name)}{right}")
    lines += [f'  {ids[node.name]}["{_label(node.name)}"]' for node in graph.nodes]
    slopes = {(g.node, g.wrt): notation.text(g.formula) for g in derivation.locals}
    for node in graph.nodes:
        for parent in dict.fromkeys(read.parent for read in node.reads):
            label = slopes.get((node.name, parent))
            arrow = f'-- "{_label(label)}" -->' if label else "-->"
            lines.append(f"  {ids[parent]} {arrow} {ids[node.name]}")
    for verdict in sorted({marks[name] for name in names if name in marks}):
        members = ",".join(ids[name] for name in names if marks.get(name) == verdict)
        lines.append(f"  classDef {verdict} fill:{COLOURS[STYLES[verdict]]},color:#1f2328")
        lines.append(f"  class {members} {verdict}")
    return "\n".join(lines)


def _label(text: str) -> str:
    """A text inside Mermaid's quotes: nothing of it is markup."""
    short = text if len(text) <= MAX_MERMAID else text[: MAX_MERMAID - 1] + "…"
    return "".join(c if c.isalnum() or c in " _.,=+-/^" or ord(c) > 127 else f"#{ord(c)};" for c in short)
