"""Which flags a run takes, and that all others are named before anything is started."""

import os
import subprocess
from pathlib import Path

import pytest

from loadtest import __main__ as command
from loadtest.flags import REFUSED
from tests.conftest import ROOT
from tests.deploy.programs import need_environment


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What a run that would start now hands on to locust."""
    found: list[str] = []
    monkeypatch.setattr(command, "load", lambda _, words: found.extend(words) or 0)
    monkeypatch.chdir(tmp_path)
    return found


def test_what_is_handed_on_is_the_callers(handed: list[str], tmp_path: Path) -> None:
    (tmp_path / "slo.toml").touch()
    words = ["--limits", "slo.toml", "--csv=c", "--csv-full-history", "--json-file", "out.json", "--html", "h.html"]
    assert command.main([*words, "--think", "0.5", "--users", "3", "-L", "INFO", "--closed"]) == 0
    assert handed == [
        "--closed", "--think", "0.5", "--limits", f"{tmp_path}/slo.toml", "--csv", f"{tmp_path}/c",
        "--csv-full-history", "--html", f"{tmp_path}/h.html", "--json-file", f"{tmp_path}/out", "--loglevel", "INFO",
    ]  # fmt: skip


def test_nothing_is_handed_on_that_was_not_given(handed: list[str]) -> None:
    assert command.main([]) == 0
    assert handed == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        *(([flag], "of locust is not taken") for flags in REFUSED for flag in flags),
        (["--processes", "2"], "--workers N"),
        (["--processes=2"], "--workers N"),
        (["--csv-full-history"], "needs --csv"),
        (["--json-file"], "expected one argument"),
        (["--json-file", "no/such/out"], "there is no folder"),
        (["--csv", "no/such/c"], "there is no folder"),
        (["--limits", "none.toml"], "there is no file none.toml"),
        (["--web-port", "8090"], "is for --web"),
        (["--web", "--web-port", "many"], "invalid int value"),
        (["--print-stats"], "is for --web"),
        (["--loglevel", "LOUD"], "invalid choice"),
        (["--time", "soon"], "is no time such as"),
        (["--secnario", "ramp"], "did you mean --scenario"),
        (["Passengers"], "there is no Passengers"),
    ],
)
def test_what_is_not_taken_is_named_before_anything_starts(
    handed: list[str], capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err
    assert handed == []


def test_every_flag_of_locust_is_taken_or_refused() -> None:
    """So that a new one of another version is seen here, and not by a run that hangs."""
    python = need_environment("load")
    code = """
import argparse
from locust.argument_parser import get_parser
from loadtest.flags import REFUSED, add_handed_on
mine = argparse.ArgumentParser(); add_handed_on(mine)
known = {flag for flags in REFUSED for flag in flags} | set(mine._option_string_actions)
known |= {"--host", "-H", "--users", "-u", "--run-time", "-t", "--help", "-h"}  # ./run load has its own.
shown = [action for action in get_parser()._actions if action.help != argparse.SUPPRESS]
print(*sorted({flag for action in shown for flag in action.option_strings} - known))
"""
    done = subprocess.run(
        [python, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
