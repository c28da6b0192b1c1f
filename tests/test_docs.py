"""The pages name files, modules and names that exist, link to what is there, and are all reachable."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "examples" / "README.md", *PAGES]
ROOMS = "models|training|service|loadtest|deploy|benchmarks|examples|data|docs|locks|tests"
PATH = re.compile(rf"(?<![\w/.-])(?:{ROOMS})/[\w./-]*\w/?")
NAME = re.compile(rf"(?<![\w/.-])(?:{ROOMS})(?:\.\w+)+(?<!\.md)\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MADE_BY_RUNNING = ("loadtest/results/",)

each_text = pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))


@each_text
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = set(PATH.findall(page.read_text()))
    missing = [path for path in named if not path.startswith(MADE_BY_RUNNING) and not (ROOT / path).exists()]
    missing += [
        name for name in re.findall(r"`(\w+\.py)`", page.read_text()) if not any(ROOT.glob(f"[a-z]*/**/{name}"))
    ]
    assert not missing


@each_text
def test_the_modules_and_names_that_a_page_names_exist(page: Path) -> None:
    named = set(NAME.findall(page.read_text()))
    assert not [name for name in named if not _exists(name)]


@each_text
def test_the_links_of_a_page_resolve(page: Path) -> None:
    broken = []
    for link in _links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("start", [ROOT / "README.md", INDEX], ids=["README.md", "docs/index.md"])
def test_every_page_is_reachable(start: Path) -> None:
    reached, new = {start}, [start]
    while new:
        page = new.pop()
        linked = {(page.parent / link.partition("#")[0]).resolve() for link in _links(page)}
        found = {path for path in linked if path.suffix == ".md" and path.is_file()} - reached
        reached |= found
        new += found
    assert not set(PAGES) - {INDEX} - reached


def test_the_site_lists_every_page() -> None:
    listed = re.findall(r"- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == [str(page.relative_to(DOCS)) for page in PAGES]


def test_the_way_of_a_request_has_its_stations() -> None:
    way = (DOCS / "architecture.md").read_text().partition("## The way of a request")[2].partition("##")[0]
    assert len(re.findall(r"^ \w+ +\S+\.py ", way, re.MULTILINE)) >= 14


def _exists(dotted: str) -> bool:
    """Whether ``models.predictor.Predictor`` is a package, a module, or a name at the top of a module."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        if place.with_suffix(".py").is_file():
            return length == len(parts) or parts[length] in _top_names(place.with_suffix(".py"))
        if place.is_dir():
            return length == len(parts)
    return False


def _top_names(module: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def _links(page: Path) -> Iterator[str]:
    """Relative links of a page, outside its code."""
    for link in LINK.findall(_without_code(page)):
        if not re.match(r"[a-z]+:", link):
            yield link


def _anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as Python-Markdown makes them."""
    headings = re.findall(r"^#+ (.*)$", _without_code(page), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def _without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
