"""What a module defines: each name with its kind, its owner and its line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

from tests.house.source import Module


@dataclass(frozen=True)
class Definition:
    """One name where it is defined.

    `kind` is module, class, function (methods too), parameter, attribute (of a class or of `self`),
    variable (of the module), local, or alias: another name for what has one, `A = B` or `import B as A`.
    """

    path: str
    line: int
    kind: str
    name: str
    owner: str = ""
    """Classes and functions around it: `Pool.open` for a parameter of that method."""
    decorators: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    siblings: frozenset[str] = field(default=frozenset())
    """A parameter's fellow parameters."""

    @property
    def qualname(self) -> str:
        """The name after its owner."""
        return f"{self.owner}.{self.name}" if self.owner else self.name

    @property
    def is_nested(self) -> bool:
        """Whether a function is defined inside of another."""
        return bool(self.owner) and self.owner.rpartition(".")[2].lstrip("_")[:1].islower()


def definitions(module: Module) -> list[Definition]:
    """Return all names that a module defines, itself included."""
    return list(_Collector(module).collect())


class _Collector:
    def __init__(self, module: Module) -> None:
        self._module = module

    def collect(self) -> Iterator[Definition]:
        path = self._module.path
        yield Definition(path, 1, "module", self._module.name.rpartition(".")[2])
        yield from self._inside(self._module.tree, "", "variable")

    def _inside(self, node: ast.AST, owner: str, kind: str) -> Iterator[Definition]:
        """Yield what is defined below a node; `kind` is that of a name assigned here."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield self._at(child, "class", child.name, owner, bases=_texts(child.bases))
                yield from self._inside(child, _join(owner, child.name), "attribute")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._function(child, owner)
            elif kind != "local" and _is_alias(child):
                yield self._at(child, "alias", ast.unparse(child.targets[0]), owner)
            elif isinstance(child, ast.Import | ast.ImportFrom):
                for name in child.names:
                    if name.asname and name.asname != name.name:
                        yield self._at(child, "alias", name.asname, owner)
            else:
                if isinstance(child, ast.Lambda):
                    yield from self._parameters(child.args, _join(owner, "lambda"))
                elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                    yield self._at(child, kind, child.id, owner)
                elif (
                    isinstance(child, ast.Attribute)
                    and isinstance(child.ctx, ast.Store)
                    and isinstance(child.value, ast.Name)
                    and child.value.id == "self"
                ):
                    yield self._at(child, "attribute", child.attr, owner.rpartition(".")[0])
                yield from self._inside(child, owner, kind)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, owner: str) -> Iterator[Definition]:
        yield self._at(node, "function", node.name, owner, decorators=_texts(node.decorator_list))
        inner = _join(owner, node.name)
        yield from self._parameters(node.args, inner)
        for part in node.body:
            yield from self._inside(ast.Module([part], []), inner, "local")

    def _parameters(self, arguments: ast.arguments, owner: str) -> Iterator[Definition]:
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
        names = frozenset(one.arg for one in named)
        for one in named:
            yield Definition(
                self._module.path, one.lineno, "parameter", one.arg, owner, siblings=names - {one.arg}
            )

    def _at(
        self,
        node: ast.expr | ast.stmt,
        kind: str,
        name: str,
        owner: str,
        *,
        decorators: tuple[str, ...] = (),
        bases: tuple[str, ...] = (),
    ) -> Definition:
        return Definition(self._module.path, node.lineno, kind, name, owner, decorators, bases)


def _is_alias(node: ast.AST) -> TypeGuard[ast.Assign]:
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Name)
        and len(node.targets) == 1
        and isinstance(node.targets[0], ast.Name)
    )


def _join(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name


def _texts(nodes: list[ast.expr]) -> tuple[str, ...]:
    return tuple(ast.unparse(node) for node in nodes)
