"""Import cycles between modules, and between the folders that hold them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from tests.house.source import Module, Offender

Edges: TypeAlias = "dict[str, dict[str, int]]"
"""For each module's name the modules it imports, and the line that does so."""

_TYPE_CHECKING = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports(modules: Iterable[Module]) -> Edges:
    """Return who imports whom; inside of functions too, under `if TYPE_CHECKING` not.

    `from package import name` is an import of the module `package.name` where there is one, otherwise
    of the package. That importing `a.b` also runs `a/__init__.py` makes no edge.
    """
    modules = list(modules)
    names = {module.name for module in modules}
    edges: Edges = {}
    for module in modules:
        out = edges[module.name] = {}
        package = module.name if module.path.endswith("__init__.py") else module.name.rpartition(".")[0]
        for node in _outside_type_checking(module.tree):
            for target in _targets(node, package, names):
                if target != module.name:
                    out.setdefault(target, node.lineno)
    return edges


def _outside_type_checking(node: ast.AST) -> Iterator[ast.stmt]:
    """Yield all statements below a node; expressions hold no imports, and most nodes are those."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        if block == "body" and isinstance(node, ast.If) and ast.unparse(node.test) in _TYPE_CHECKING:
            continue
        children = getattr(node, block, ())
        for child in children if isinstance(children, list) else ():
            if isinstance(child, ast.stmt):
                yield child
            yield from _outside_type_checking(child)


def _targets(node: ast.stmt, package: str, names: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in names)
    elif isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*above, *([source] if source else [])])
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            if inner in names:
                yield inner
            elif source in names:
                yield source


def module_cycles(modules: Iterable[Module], edges: Edges) -> Iterator[list[Offender]]:
    """Yield, for each group of modules that import each other, one shortest cycle."""
    paths = {module.name: module.path for module in modules}
    for group in components(edges):
        cycle = shortest_cycle(group, edges)
        size = f" (in a group of {len(group)} modules)" if len(group) > len(cycle) else ""
        yield [
            Offender(paths[name], edges[name][target], f"{name} imports {target}{size}")
            for name, target in zip(cycle, [*cycle[1:], cycle[0]], strict=True)
        ]


def package_cycles(modules: Iterable[Module], edges: Edges) -> Iterator[Offender]:
    """Yield, for each folder, the cycles between its children, a folder among them taken as one."""
    packages = {module.name: module.path for module in modules if module.path.endswith("__init__.py")}
    for package, path in sorted(packages.items()):
        siblings: Edges = {}
        for name, targets in edges.items():
            here = _child(name, package)
            for target, line in targets.items():
                there = _child(target, package)
                if here and there and here != there:
                    siblings.setdefault(here, {}).setdefault(there, line)
        for group in components(siblings):
            cycle = shortest_cycle(group, siblings)
            more = f" (one of a group of {len(group)})" if len(group) > len(cycle) else ""
            yield Offender(path, 1, f"in {package}: {' -> '.join([*cycle, cycle[0]])}{more}")


def _child(name: str, package: str) -> str:
    return name[len(package) + 1 :].partition(".")[0] if name.startswith(package + ".") else ""


def components(edges: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    """Return the groups of two or more nodes that reach each other (Tarjan), sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges.get(node, {}):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            place = stack.index(node)
            group = stack[place:]
            del stack[place:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return sorted(found)


def shortest_cycle(group: list[str], edges: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a shortest cycle inside of a group, by breadth first from each of its nodes."""
    inside = set(group)
    best: list[str] = []
    for start in group:
        paths = [[start]]
        seen = {start}
        while paths and (not best or len(paths[0]) < len(best)):
            path = paths.pop(0)
            targets = [target for target in edges[path[-1]] if target in inside]
            if start in targets:
                best = path
                break
            for target in targets:
                if target not in seen:
                    seen.add(target)
                    paths.append([*path, target])
    return best
