"""Real text that every Python brings: the docstrings of its standard library."""

import ast
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SHORTEST = 40
"""Characters: shorter docstrings say too little to search for."""
LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3"}


def everywhere() -> Iterator[tuple[dict[str, Any], str]]:
    """Metadata and text of every docstring in the standard library's own modules."""
    return _of(sorted(_root().rglob("*.py")))


def of_top_modules() -> Iterator[tuple[dict[str, Any], str]]:
    """Those of the modules that are a file, such as argparse and threading, and not of the packages."""
    return _of(sorted(_root().glob("*.py")))


def of_module(name: str, most: int, longest: int) -> list[str]:
    """So many texts of one of them, of its public names: the longest of those that have no more characters than ``longest``."""
    texts = (text for of, text in _of([_root() / f"{name}.py"]) if of["public"] and len(text) <= longest)
    return sorted(dict.fromkeys(texts), key=len, reverse=True)[:most]


def _root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _of(paths: Iterable[Path]) -> Iterator[tuple[dict[str, Any], str]]:
    for path in paths:
        relative = path.relative_to(_root())
        if LEFT_OUT & set(relative.parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # some modules are templates
            continue
        module = ".".join(relative.with_suffix("").parts)
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                continue
            text = ast.get_docstring(node)
            if text and len(text) >= SHORTEST:
                name, line = getattr(node, "name", "module"), getattr(node, "lineno", 0)
                yield (
                    {
                        "module": module,
                        "name": name,
                        "kind": type(node).__name__,
                        "line": line,
                        "public": name[0] != "_",
                    },
                    text,
                )
