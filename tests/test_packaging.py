import ast
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def declared():
    """The requirements of an installation."""
    keywords = (node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.keyword))
    [requirements] = (ast.literal_eval(node.value) for node in keywords if node.arg == "install_requires")
    return [Requirement(requirement) for requirement in requirements]


def bounds(requirements, operator):
    """Name and version of each requirement, which must have no other condition."""
    versions = {}
    for requirement in requirements:
        [specifier] = requirement.specifier
        assert specifier.operator == operator, requirement
        versions[requirement.name] = Version(specifier.version)
    return versions


def test_the_oldest_versions_are_the_declared_lower_bounds():
    lines = (ROOT / ".github/oldest.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert bounds(declared(), ">=") == bounds(pinned, "==")
