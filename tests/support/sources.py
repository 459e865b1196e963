"""What the project's own Python files say, each parsed once a run.

Trees are large: what the tests ask of them is kept, and they are not.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Definition:
    """A function or a class, with the definitions inside."""

    name: str
    line: int
    is_class: bool
    documented: bool
    decorators: tuple[ast.expr, ...]
    inner: tuple["Definition", ...]

    def walk(self) -> Iterator["Definition"]:
        """This one and all inside, at whatever depth."""
        yield self
        for definition in self.inner:
            yield from definition.walk()


@dataclass(frozen=True)
class Source:
    """One file."""

    documented: bool
    imports: tuple[ast.Import | ast.ImportFrom, ...]
    """In whatever function they stand."""
    outer_imports: tuple[ast.Import | ast.ImportFrom, ...]
    """Those that are made when the file is imported."""
    attributes: dict[str, int]
    """Names that stand behind a dot, with the first line of each."""
    definitions: tuple[Definition, ...]
    """Outside of any other."""

    def walk(self) -> Iterator[Definition]:
        """All definitions, at whatever depth."""
        for definition in self.definitions:
            yield from definition.walk()

    def modules(self) -> Iterator[str]:
        """Every module that an import names, in whatever function it stands; relative ones are our own."""
        for node in self.imports:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif node.module and not node.level:
                yield node.module


@cache
def read_source(path: Path) -> Source:
    """Parse a file."""
    tree = ast.parse(path.read_bytes())
    attributes: dict[str, int] = {}
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        elif isinstance(node, ast.Attribute):
            attributes.setdefault(node.attr, node.lineno)
    return Source(
        documented=bool(ast.get_docstring(tree)),
        imports=tuple(imports),
        outer_imports=tuple(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)),
        attributes=attributes,
        definitions=tuple(_definitions(tree)),
    )


def _definitions(parent: ast.AST) -> Iterator[Definition]:
    """Those of a tree that are in no other definition."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield Definition(
                name=node.name,
                line=node.lineno,
                is_class=isinstance(node, ast.ClassDef),
                documented=bool(ast.get_docstring(node)),
                decorators=tuple(node.decorator_list),
                inner=tuple(_definitions(node)),
            )
        elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _definitions(node)
