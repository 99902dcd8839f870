"""Draws the package from its imports into docs/architecture.md.

    python docs/import_picture.py

The floors are the layers of the import contracts in pyproject.toml, the rooms are the modules and packages directly
inside ``xent``, ``xent.evaluation`` and ``xent.backends``, and an arrow is any import in the source text: at the top of
a module, inside a function, or for type checkers only. The facade, ``xent/__init__.py``, is not a room: it loads each
public name when it is first used, so only the imports of it are drawn.
"""

from __future__ import annotations

import ast
import functools
import math
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).with_name("architecture.md")
DRAWN = ("xent", "xent.evaluation", "xent.backends")
FACADE = "xent"
Arrow = tuple[str, str]


class Picture(NamedTuple):
    """The rooms of one package by floor, top floor first, and the imports between them."""

    package: str
    floors: list[list[str]]
    arrows: set[Arrow]

    @property
    def rooms(self) -> list[str]:
        return [room for floor in self.floors for room in floor]

    @property
    def height(self) -> dict[str, int]:
        """The floor number of each room; the bottom floor is 1."""
        return {room: height for height, floor in enumerate(reversed(self.floors), start=1) for room in floor}


def floors_of(package: str, root: Path = ROOT) -> list[list[str]]:
    """The rooms of each floor, top floor first, as the import contract of the package names them."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (
        contract["layers"]
        for contract in contracts
        if contract["type"] == "layers" and contract["containers"] == [package]
    )
    return [re.split(r" [|:] ", layer) for layer in layers]


@functools.cache
def imported_names(source: str, package: str) -> frozenset[str]:
    """The full name of every module or object that a module of this package imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def draw(package: str, root: Path = ROOT) -> Picture:
    """The picture of one package."""
    folder = root / Path(*package.split("."))
    floors = floors_of(package, root)
    rooms, arrows = {room for floor in floors for room in floor}, set()
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).with_suffix("").parts
        room = inside[0]
        if room == "__init__":
            continue
        for name in imported_names(path.read_text(encoding="utf-8"), ".".join([package, *inside[:-1]])):
            target = name.removeprefix(f"{package}.").split(".")[0] if name.startswith(f"{package}.") else None
            if target in rooms - {room}:
                arrows.add((room, target))
            elif package == FACADE and name.split(".")[0] == FACADE and target != room:
                arrows.add((room, FACADE))
    return Picture(package, floors, arrows)


def reachable(arrows: set[Arrow], start: str) -> set[str]:
    """The rooms that a path of arrows leads to from a room."""
    visited, pending = set(), [start]
    while pending:
        room = pending.pop()
        new = {target for source, target in arrows if source == room} - visited
        visited |= new
        pending += new
    return visited


def transitive_reduction(arrows: set[Arrow]) -> list[Arrow]:
    """The arrows whose rooms no path over other rooms connects."""
    return sorted(arrow for arrow in arrows if arrow[1] not in reachable(arrows - {arrow}, arrow[0]))


def circles(picture: Picture) -> set[str]:
    """The rooms from which a path leads back to the room itself."""
    return {room for room in picture.rooms if room in reachable(picture.arrows, room)}


def counts(picture: Picture) -> str:
    """The numbers of rooms, floors and arrows, in a sentence."""
    height, inside = picture.height, [arrow for arrow in picture.arrows if FACADE not in arrow]
    upward = sum(height[source] < height[target] for source, target in inside)
    sideways = sum(height[source] == height[target] for source, target in inside)
    return (
        f"{len(picture.rooms)} rooms on {len(picture.floors)} floors, {len(inside)} arrows between them: "
        f"{upward} upwards, {sideways} sideways; {len(circles(picture))} rooms in a circle."
    )


def markdown(picture: Picture) -> str:
    """The drawing, the counts, and every arrow."""
    lines = ["```mermaid", "flowchart TD"]
    for height, floor in zip(range(len(picture.floors), 0, -1), picture.floors, strict=True):
        lines += [f'    subgraph floor{height} ["{height}"]', *(f"        {room}" for room in floor), "    end"]
    if any(target == FACADE for _, target in picture.arrows):
        lines.append(f'    {FACADE}(["import {FACADE}"])')
    height = picture.height
    for source, target in transitive_reduction(picture.arrows):
        upward = target != FACADE and height[source] < height[target]
        lines.append(f"    {source} {'-. upward .->' if upward else '-->'} {target}")
    lines += ["```", "", counts(picture), "", "| floor | room | imports |", "|---:|---|---|"]
    for room in picture.rooms:
        targets = sorted(
            (target for source, target in picture.arrows if source == room), key=[*picture.rooms, FACADE].index
        )
        lines.append(f"| {height[room]} | `{room}` | {', '.join(f'`{target}`' for target in targets)} |")
    return "\n".join(lines) + "\n"


ROOM_HEIGHT, FLOOR_HEIGHT, LETTER_WIDTH, GAP = 28, 66, 8, 20


def svg(picture: Picture) -> str:
    """The drawing for a page that runs no script: floors from top to bottom, arrows behind the rooms."""
    rows = [list(floor) for floor in picture.floors]
    users = [number for number, floor in enumerate(rows) if any((room, FACADE) in picture.arrows for room in floor)]
    if users:
        rows.insert(max(users) + 1, [FACADE])
    names = {FACADE: f"import {FACADE}"} if users else {}
    widths = {room: LETTER_WIDTH * len(names.get(room, room)) + 24 for row in rows for room in row}
    width = max(sum(widths[room] + GAP for room in row) for row in rows) + GAP
    places = {}
    for number, row in enumerate(rows):
        left = (width - sum(widths[room] + GAP for room in row) + GAP) / 2
        for room in row:
            places[room] = left + widths[room] / 2, 10 + number * FLOOR_HEIGHT
            left += widths[room] + GAP
    lines = []
    for source, target in transitive_reduction(picture.arrows):
        (x, y), (to_x, to_y) = places[source], places[target]
        if y == to_y:  # from wall to wall
            side, middle = math.copysign(0.5, to_x - x), y + ROOM_HEIGHT / 2
            left, right = x + side * widths[source], to_x - side * (widths[target] + 12)
            lines.append(f'<path d="M{left:g} {middle:g}L{right:g} {middle:g}"/>')
            continue
        y, to_y = y + ROOM_HEIGHT, to_y - 6
        lines.append(f'<path d="M{x:g} {y:g}C{x:g} {y + 24:g} {to_x:g} {to_y - 24:g} {to_x:g} {to_y:g}"/>')
    for room, (x, y) in places.items():
        rounded, left = 14 if room in names else 5, x - widths[room] / 2
        lines.append(f'<rect x="{left:g}" y="{y}" width="{widths[room]}" height="{ROOM_HEIGHT}" rx="{rounded}"/>')
        lines.append(f'<text x="{x:g}" y="{y + 19}">{names.get(room, room)}</text>')
    height = len(rows) * FLOOR_HEIGHT - 20
    return (
        f'<div class="imports"><svg viewBox="0 0 {width:g} {height}" width="{width:g}" role="img" '
        f'aria-label="The imports of {picture.package}; the table below has them all">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z"/></marker></defs>{"".join(lines)}</svg></div>'
    )


def marked(package: str) -> re.Pattern[str]:
    """A pattern for the text between the markers of a package."""
    return re.compile(rf"(?<=<!-- imports of {package} -->\n).*?(?=<!-- /imports of {package} -->)", re.DOTALL)


def drawn_page(text: str, root: Path = ROOT) -> str:
    """The page with every picture redrawn."""
    for package in DRAWN:
        picture = markdown(draw(package, root))
        text = marked(package).sub(lambda _, picture=picture: picture, text)
    return text


if __name__ == "__main__":
    PAGE.write_text(drawn_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
