"""The sources of this repository, each parsed once for all tests that read them: these run in one process."""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Module(NamedTuple):
    path: str
    """Within the repository."""
    tree: ast.Module


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Of these folders and all that are in them, by path."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return tuple(Module(path.relative_to(ROOT).as_posix(), parsed(path)) for path in paths)


@cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes below one, itself with them."""
    return tuple(ast.walk(tree))
