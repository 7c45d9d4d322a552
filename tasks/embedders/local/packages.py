"""The packages that models on this machine need, which come with an extra."""

from importlib.util import find_spec

from tasks.base.errors import UsageError
from tasks.embedders.naming import ModelName

INSTALL = "pip install -c constraints.txt torch && pip install -c constraints.txt -e '.[models]'"
"""torch by itself, so that the build is kept that pip finds for the machine."""


def require(name: ModelName, packages: tuple[str, ...]) -> None:
    """Raises UsageError that names the first which is not installed, and how to install it."""
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(
                f"embedder {name}: {package} is not installed; install torch first and alone, then the extra: {INSTALL}"
            )
