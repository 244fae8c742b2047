"""A program drawn: as lines of text, and as an SVG picture.

Both show every input and node with what it reads, and each layer in its own one line (`Layer.summary`). The picture
puts a node below everything it reads, and keeps the nodes of a row near the middle of what they read (Sugiyama 1981,
without crossing reduction beyond that).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from engine.program.graph import Program
from engine.program.layer import Layer

_CHARACTER, _LINE, _MARGIN = 7.2, 18.0, 24.0  # pixels
_BETWEEN, _BELOW = 28.0, 52.0
_WIDEST = 44  # characters
_STYLE = """
  text { font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #1f2328; }
  .name { font-weight: 600; } .what { fill: #59636e; }
  .box { fill: #f6f8fa; stroke: #8c959f; } .input { fill: none; stroke: #8c959f; stroke-dasharray: 4 3; }
  .edge { fill: none; stroke: #8c959f; } .answer { stroke: #0969da; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .what { fill: #9198a1; } .box { fill: #151b23; } .answer { stroke: #4493f8; }
  }
"""


def as_text(program: Program) -> list[str]:
    """A line for every input and node, in the order of execution, and one for the answer."""
    rows = [(name, "input", "", "") for name in program.inputs]
    for node in program.nodes:
        rows.append((node.name, node.layer.kind, node.layer.summary, ", ".join(node.sources.values())))
        rows += [(f"  {name}", part.kind, part.summary, "") for name, part in _parts(node.layer)]
    rows.append((program.output, "answer", "", ""))
    name, kind, what = (max(len(row[column]) for row in rows) for column in range(3))
    return [f"{row[0]:<{name}}  {row[1]:<{kind}}  {row[2]:<{what}}{_reads(row[3])}".rstrip() for row in rows]


def _parts(layer: Layer, before: str = "") -> Iterator[tuple[str, Layer]]:
    """The parts of a layer, each before its own, by their full names."""
    for name, part in layer.parts.items():
        yield f"{before}{name}", part
        yield from _parts(part, f"{before}{name}.")


def _reads(sources: str) -> str:
    return f"  ← {sources}" if sources else ""


@dataclass(frozen=True, slots=True)
class _Box:
    """An input or a node in its place; `x` is its middle, `y` its upper edge, in pixels."""

    name: str
    lines: tuple[str, ...]
    style: str
    x: float
    y: float

    @property
    def width(self) -> float:
        return max(map(len, self.lines)) * _CHARACTER + 2 * 14

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 14


def as_svg(program: Program) -> str:
    """One picture, readable on light and dark pages, without scripts, fonts or anything else from outside."""
    reads = {node.name: tuple(_owner(reference) for reference in node.sources.values()) for node in program.nodes}
    boxes = _placed(program, reads)
    width = max(box.x + box.width / 2 for box in boxes.values()) + _MARGIN
    height = max(box.y + box.height for box in boxes.values()) + _MARGIN
    drawn = [f'<path class="edge" marker-end="url(#tip)" d="{path}"/>' for path in _paths(reads, boxes)]
    for box in boxes.values():
        drawn += _drawn(box)
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
    """Boxes by name, row under row."""
    rank = dict.fromkeys(program.inputs, 0)
    for node in program.nodes:
        rank[node.name] = 1 + max(rank[name] for name in reads[node.name])
    rows: list[list[_Box]] = [[] for _ in range(1 + max(rank.values()))]
    for name in program.inputs:
        rows[0].append(_Box(name, (name,), "input", 0, 0))
    for node in program.nodes:
        lines = [*_wrapped(_what(node.layer))]
        for name, part in _parts(node.layer):
            lines += _wrapped(f"{name}: {_what(part)}")
        style = "box answer" if node is program.output_node else "box"
        rows[rank[node.name]].append(_Box(node.name, (node.name, *lines), style, 0, 0))
    boxes: dict[str, _Box] = {}
    y = _MARGIN
    for row in rows:
        wished = sorted((_wish(box.name, reads, boxes), number) for number, box in enumerate(row))
        edge = -float("inf")
        for wish, number in wished:
            box = row[number]
            x = max(wish, edge + box.width / 2)
            edge = x + box.width / 2 + _BETWEEN
            boxes[box.name] = _Box(box.name, box.lines, box.style, x, y)
        y += max(box.height for box in row) + _BELOW
    left = min(box.x - box.width / 2 for box in boxes.values()) - _MARGIN
    return {name: _Box(name, box.lines, box.style, box.x - left, box.y) for name, box in boxes.items()}


def _what(layer: Layer) -> str:
    return " ".join(filter(None, (layer.kind, layer.summary)))


def _wish(name: str, reads: Mapping[str, Sequence[str]], boxes: Mapping[str, _Box]) -> float:
    """Where the middle of a box would like to be: at the mean of what it reads."""
    above = [boxes[source].x for source in reads.get(name, ())]
    return sum(above) / len(above) if above else 0.0


def _wrapped(text: str) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > _WIDEST:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    yield line


def _paths(reads: Mapping[str, Sequence[str]], boxes: Mapping[str, _Box]) -> Iterator[str]:
    for name, sources in reads.items():
        for source in dict.fromkeys(sources):
            above, below = boxes[source], boxes[name]
            start, end = above.y + above.height, below.y - 1
            middle = (start + end) / 2
            curve = f"{above.x:.1f} {middle:.1f} {below.x:.1f} {middle:.1f} {below.x:.1f} {end:.1f}"
            yield f"M{above.x:.1f} {start:.1f}C{curve}"


def _drawn(box: _Box) -> Iterator[str]:
    left = box.x - box.width / 2
    size = f'x="{left:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    yield f'<rect class="{box.style}" rx="7" {size}/>'
    for number, line in enumerate(box.lines):
        style = "what" if number else "name"
        y = box.y + _LINE * (number + 1)
        yield f'<text class="{style}" x="{box.x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(line)}</text>'
