"""A program drawn: as lines of text, and as an SVG picture.

Both show every input and node with what it reads, and each layer and its parts in their own one line (`Layer.summary`).
The picture puts a node below everything it reads, keeps the nodes of a row near the middle of what they read, and has
an edge that passes a row go between its nodes (Sugiyama 1981, without crossing reduction beyond that).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from xml.sax.saxutils import escape

from engine.program.graph import Program
from engine.program.layer import Layer

_CHARACTER, _LINE, _MARGIN = 7.85, 18.0, 24.0  # pixels; Menlo and DejaVu Sans Mono are that wide at 13
_BETWEEN, _BELOW = 28.0, 52.0
_PADDING = 14.0
_WIDEST, _WIDEST_WITH_PARTS = 48, 64  # characters
_INDENT = 2
_STYLE = """
  text { font: 13px ui-monospace, Menlo, Consolas, monospace; } text, .part { fill: #1f2328; }
  .name { font-weight: 600; } .what { fill: #59636e; }
  .box { fill: #f6f8fa; stroke: #8c959f; } .input { fill: none; stroke: #8c959f; stroke-dasharray: 4 3; }
  .edge { fill: none; stroke: #8c959f; } .answer { stroke: #0969da; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text, .part { fill: #e6edf3; } .what { fill: #9198a1; }
    .box { fill: #151b23; } .answer { stroke: #4493f8; }
  }
"""


def as_text(program: Program) -> list[str]:
    """A line for every input and node, in the order of execution, and one for the answer."""
    rows = [(name, "input", "", "") for name in program.inputs]
    for node in program.nodes:
        rows.append((node.name, node.layer.kind, node.layer.summary, ", ".join(node.sources.values())))
        rows += [(f"{_indent(depth)}{name}", part.kind, part.summary, "") for depth, name, part in _parts(node.layer)]
    rows.append((program.output, "answer", "", ""))
    name, kind, what = (max(len(row[column]) for row in rows) for column in range(3))
    return [f"{row[0]:<{name}}  {row[1]:<{kind}}  {row[2]:<{what}}{_reads(row[3])}".rstrip() for row in rows]


def _parts(layer: Layer, depth: int = 1) -> Iterator[tuple[int, str, Layer]]:
    """The parts of a layer, each before its own, with how deep they lie and their names there."""
    for name, part in layer.parts.items():
        yield depth, name, part
        yield from _parts(part, depth + 1)


def _indent(depth: int) -> str:
    return " " * (_INDENT * depth)


def _reads(sources: str) -> str:
    return f"  ← {sources}" if sources else ""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a box; `part` is what of its beginning names a part."""

    text: str
    indent: int = 0  # characters
    part: str = ""

    @property
    def length(self) -> int:
        return self.indent + len(self.text)


@dataclass(frozen=True, slots=True)
class _Box:
    """An input or a node in its place; `x` is its middle, `y` its upper edge, `tall` its row's height, in pixels.

    Without lines it is only room for an edge that passes the row.
    """

    name: str
    lines: tuple[_Line, ...]
    style: str
    x: float = 0.0
    y: float = 0.0
    tall: float = 0.0

    @property
    def width(self) -> float:
        return max((line.length for line in self.lines), default=0) * _CHARACTER + 2 * _PADDING

    @property
    def height(self) -> float:
        return self.tall if not self.lines else len(self.lines) * _LINE + 14


def as_svg(program: Program) -> str:
    """One picture, readable on light and dark pages, without scripts, fonts or anything else from outside."""
    reads = {node.name: tuple(_owner(reference) for reference in node.sources.values()) for node in program.nodes}
    boxes = _placed(program, reads)
    width = max(box.x + box.width / 2 for box in boxes.values()) + _MARGIN
    height = max(box.y + box.height for box in boxes.values()) + _MARGIN
    drawn = [f'<path class="edge" marker-end="url(#tip)" d="{path}"/>' for path in _paths(reads, boxes)]
    for box in boxes.values():
        drawn += _drawn(box) if box.lines else ()
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#8c959f"/></marker></defs>',
            *drawn,
            "</svg>\n",
        ]
    )


def _owner(reference: str) -> str:
    return reference.split(".")[0]


def _placed(program: Program, reads: Mapping[str, Sequence[str]]) -> dict[str, _Box]:
    """Boxes by name, row under row, with room for the edges that pass a row."""
    rank = dict.fromkeys(program.inputs, 0)
    for node in program.nodes:
        rank[node.name] = 1 + max(rank[name] for name in reads[node.name])
    rows: list[list[_Box]] = [[] for _ in range(1 + max(rank.values()))]
    for name in program.inputs:
        rows[0].append(_Box(name, (_Line(name),), "input"))
    for node in program.nodes:
        style = "box answer" if node is program.output_node else "box"
        rows[rank[node.name]].append(_Box(node.name, tuple(_lines(node.name, node.layer)), style))
    above: dict[str, list[str]] = {name: [] for name in rank}
    for name, sources in reads.items():
        for source in sources:
            way = _way(source, rank[source], rank[name])
            above[name].append(way[-1])
            for passed, before in zip(way[1:], way, strict=False):
                if passed not in above:
                    above[passed] = [before]
                    rows[rank[source] + way.index(passed)].append(_Box(passed, (), "way"))
    boxes: dict[str, _Box] = {}
    y = _MARGIN
    for row in rows:
        tall = max(box.height for box in row)
        boxes |= {box.name: replace(box, y=y, tall=tall) for box in _side_by_side(row, above, boxes)}
        y += tall + _BELOW
    left = min(box.x - box.width / 2 for box in boxes.values()) - _MARGIN
    return {name: replace(box, x=box.x - left) for name, box in boxes.items()}


def _way(source: str, start: int, end: int) -> list[str]:
    """The boxes that an edge leaves or passes on its way down from one row to another; no node is named like these."""
    return [source, *(f"{source} {rank}" for rank in range(start + 1, end))]


def _side_by_side(row: Sequence[_Box], above: Mapping[str, Sequence[str]], boxes: Mapping[str, _Box]) -> list[_Box]:
    """The boxes of a row, each as near to the middle of what it reads as the others leave it."""
    wishes = [_mean([boxes[source].x for source in above[box.name]]) for box in row]
    placed: list[_Box] = []
    edge = -float("inf")
    for wish, number in sorted((wish, number) for number, wish in enumerate(wishes)):
        box = row[number]
        x = max(wish, edge + box.width / 2)
        edge = x + box.width / 2 + _BETWEEN
        placed.append(replace(box, x=x))
    aside = _mean(wishes) - _mean([box.x for box in placed])
    return [replace(box, x=box.x + aside) for box in placed]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _lines(name: str, layer: Layer) -> Iterator[_Line]:
    """What stands in a node's box: its name, its layer, and below that the parts, each as deep as it lies."""
    widest = _WIDEST_WITH_PARTS if layer.parts else _WIDEST
    yield _Line(name)
    yield from _wrapped(_what(layer), widest)
    for depth, part, inner in _parts(layer):
        yield from _wrapped(f"{part}: {_what(inner)}", widest, _INDENT * depth, part)


def _what(layer: Layer) -> str:
    return " · ".join(filter(None, (layer.kind, layer.summary)))


def _wrapped(text: str, widest: int, indent: int = 0, part: str = "") -> Iterator[_Line]:
    """A text in lines that are not too long; of a part, those after the first lie deeper."""
    line = ""
    for word in text.split():
        if line and indent + len(line) + 1 + len(word) > widest:
            yield _Line(line, indent, part)
            line, indent, part = word, indent + (2 * _INDENT if part else 0), ""
        else:
            line = f"{line} {word}".strip()
    yield _Line(line, indent, part)


def _paths(reads: Mapping[str, Sequence[str]], boxes: Mapping[str, _Box]) -> Iterator[str]:
    """An edge for everything that a node reads: curves between rows, straight where it passes one."""
    for name, sources in reads.items():
        for source in dict.fromkeys(sources):
            passed = [boxes[way] for way in boxes if way.startswith(f"{source} ") and boxes[way].y < boxes[name].y]
            path = f"M{boxes[source].x:.1f} {boxes[source].y + boxes[source].height:.1f}"
            for above, below in itertools.pairwise([boxes[source], *passed, boxes[name]]):
                start, end = above.y + above.tall, below.y - (1 if below.lines else 0)
                middle = (start + end) / 2
                path += f"L{above.x:.1f} {start:.1f}"
                path += f"C{above.x:.1f} {middle:.1f} {below.x:.1f} {middle:.1f} {below.x:.1f} {end:.1f}"
            yield path


def _drawn(box: _Box) -> Iterator[str]:
    """A box with its lines: in the middle, or at the left where there are parts that lie deeper than others."""
    left = box.x - box.width / 2
    size = f'x="{left:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    yield f'<rect class="{box.style}" rx="7" {size}/>'
    in_middle = not any(line.indent for line in box.lines)
    for number, line in enumerate(box.lines):
        x = box.x if in_middle else left + _PADDING + line.indent * _CHARACTER
        place = f'x="{x:.1f}" y="{box.y + _LINE * (number + 1):.1f}"' + (' text-anchor="middle"' if in_middle else "")
        named = f'<tspan class="part">{escape(line.part)}</tspan>' if line.part else ""
        rest = escape(line.text[len(line.part) :])
        yield f'<text class="{"what" if number else "name"}" {place}>{named}{rest}</text>'
