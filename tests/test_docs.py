"""What the documentation refers to exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_and_named_files_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in re.findall(r"`(tests/[\w/]+\.py)", text) if not (ROOT / name).is_file()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_sections_exist(page):
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
    for target, section in links:
        headings = re.findall(r"^#+ (.+)$", (page.parent / target if target else page).read_text(), re.MULTILINE)
        assert section in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
