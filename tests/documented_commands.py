"""The command lines of README.md and docs/, and what each would start."""

import argparse
import re
import runpy
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:\./run|\.venv[\w-]*/\S+|python -m service)(?: .*)?")
PLACEHOLDERS = {"PRICE": "0.05", "[": "", "]": ""}
"""What a line leaves to its reader, and brackets around what may be left out."""


class Line(NamedTuple):
    """A command line: its page, and its words without comment and without what its output is written to."""

    page: Path
    words: tuple[str, ...]
    output: str | None

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text}"


def lines() -> list[Line]:
    """All, each once for a page."""
    return list(dict.fromkeys(line for page in PAGES for line in _of_page(page)))


def _of_page(page: Path) -> Iterator[Line]:
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.lstrip().startswith("```")
        if not (fenced or line.startswith("    ")) or not COMMAND.fullmatch(line.strip()):
            continue
        text = line.strip()
        for placeholder, value in PLACEHOLDERS.items():
            text = text.replace(placeholder, value)
        words = shlex.split(text, comments=True)
        output = None
        if ">" in words:
            *words, _, output = words
        yield Line(page, tuple(words), output)


class Started(BaseException):
    """What ./run would go on as: the words after the interpreter."""

    def __init__(self, words: Sequence[str]):
        super().__init__(" ".join(words))
        self.words = list(words)


class Parsed(BaseException):
    """A parser has taken all words."""


def started(words: Sequence[str], bundle: Path = ROOT / "artifacts" / "titanic") -> list[str] | int:
    """A command line → the words after the interpreter that it comes to, or the exit code of ./run where it starts
    nothing; ``bundle`` is in the place of artifacts/titanic."""
    if words[0] != "./run":
        # python -m …, or a launcher with a python -m … behind it.
        return list(words[words.index("-m") :])
    main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "run"))["main"]

    def start(python: Path, *rest: object) -> int:
        raise Started([str(word) for word in (rest if python.name == "python" else (python.name, *rest))])

    stubs = {
        "environment": lambda *_, **__: Path("bin/python"), "replace_process": start, "call": lambda *_, **__: 0,
        "passes": lambda *_: True, "ray_variables": lambda _: {}, "make_bundle": lambda: 0, "BUNDLE": bundle,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, stub in stubs.items():
            patch.setitem(main.__globals__, name, stub)  # type: ignore[attr-defined]
        try:
            return main(list(words[1:]))
        except Started as command:
            return command.words


def parse(words: Sequence[str]) -> None:
    """Have the command's own parser take what `started` gave. Raises SystemExit, or AssertionError where no parser
    is known."""
    from loadtest import __main__ as loadtest
    from models import selftest
    from service.__main__ import COMMANDS
    from service.__main__ import main as service
    from service.settings import read_settings
    from training.__main__ import main as training

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", _parse_only)
        patch.setattr(loadtest, "load", _parsed)
        match list(words):
            case ["-m", "service", name, *rest] if name in COMMANDS:
                _until_parsed(lambda: service([name, *rest]))
            case ["-m", "service", *rest]:
                patch.undo()
                read_settings({}, rest)
            case ["-m", "training", *rest]:
                _until_parsed(lambda: training(rest))
            case ["-m", "loadtest", *rest]:
                _until_parsed(lambda: loadtest.main(rest))
            case ["-m", "models.selftest", *rest]:
                _until_parsed(lambda: selftest.main(rest))
            case ["-m", "pytest", "-c", _, *rest]:
                paths = [word for word in rest if "/" in word]
                assert paths
                assert all((ROOT / path).exists() for path in paths)
            case ["-m", name] if name.startswith("benchmarks"):
                assert (ROOT / f"{name.replace('.', '/')}.py").exists() or name == "benchmarks"
            case ["-m", "tests.mutation" | "tests.notebooks"]:
                pass
            case ["-m", "mkdocs", "build", *_]:
                pass
            case ["ray", "start", "--head", "--block"]:
                pass
            case ["serve", "deploy", file]:
                assert (ROOT / file).exists()
            case _:
                raise AssertionError(f"no parser is known for {' '.join(words)}")


def _parse_only(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
    _, rest = self.parse_known_args(args, namespace)
    if rest:
        self.error(f"unrecognized arguments: {' '.join(rest)}")
    raise Parsed


def _parsed(*_: object) -> int:
    raise Parsed


def _until_parsed(main: Callable[[], object]) -> None:
    with pytest.raises(Parsed):
        main()
