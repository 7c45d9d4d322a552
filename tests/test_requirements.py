"""What is installed with constraints.txt, and what without."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
REQUIRED = [
    Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
]
PINNED = {
    re.sub(r"[-_.]+", "-", name).lower(): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("requirement", REQUIRED, ids=lambda requirement: requirement.name)
def test_what_is_tested_is_what_is_asked_for(requirement: Requirement) -> None:
    """Every dependency is pinned to a version within its bounds."""
    name = re.sub(r"[-_.]+", "-", requirement.name).lower()
    assert PINNED[name] in requirement.specifier, f"{requirement} and {PINNED[name]}"


def test_no_user_gets_a_scheduler_that_makes_no_runs() -> None:
    """With SQLAlchemy 2.1 Prefect's scheduler fails every minute, and no schedule fires: it is out of bounds, pinned or not."""
    (bound,) = [requirement.specifier for requirement in REQUIRED if requirement.name == "sqlalchemy"]
    assert "2.1.9" not in bound
    assert "2.0.58" in bound
