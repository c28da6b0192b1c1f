"""The flags of a run: those of the load itself, and the ones of locust that go with it; others are refused first."""

import difflib
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.report.slo import LIMITS
from loadtest.traffic.rows import SHIFTS
from loadtest.traffic.scenarios import SCENARIOS

FILES = ("limits", "baseline", "results", "csv", "html", "json_file", "logfile")
"""Flags that name a file or a folder, which is the caller's wherever locust runs."""

FOR_WEB = ("web_port", "web_base_path", "tls_cert", "tls_key", "print_stats")
REFUSED = {
    ("--processes", "--master", "--worker", "--expect-workers", "--expect-workers-max-wait", "--master-host",
     "--master-port", "--master-bind-host", "--master-bind-port", "--enable-rebalancing"):
        "--workers N runs the load in so many processes of this machine",
    ("--spawn-rate", "-r", "--stop-timeout", "-s", "--reset-stats", "--autostart", "--autoquit", "--headless",
     "--only-summary"): "how a run starts and ends is its scenario's; --users, --rate and --time change it",
    ("--locustfile", "-f", "--config", "--config-users", "--list", "-l", "--class-picker", "--equal-weights", "--tags",
     "-T", "--exclude-tags", "-E", "--profile", "--show-task-ratio", "--show-task-ratio-json"):
        "who asks for what is the scenario's; --kinds and --sizes change it",
    ("--json",): "standard output is the verdict's; --json-file writes a file",
    ("--exit-code-on-error",): "the exit code is the verdict's",
    ("--web-login", "--web-host"): "the page is for this machine alone",
    ("--skip-log-setup", "--skip-log", "--otel", "--version", "-V"): "it is of no use here",
}  # fmt: skip
"""Flags of locust → what to do instead."""


def add_flags(parser: ArgumentParser) -> None:
    """Those of a run, which ./run load and locust's own command take."""
    add = parser.add_argument_group("Evenkeel").add_argument
    add("--scenario", choices=sorted(SCENARIOS), default="steady", help="what is asked, and how that changes")
    add("--rate", type=float, default=0.0, help="requests per second, open model; 0: the scenario's, or --think's")
    add("--texts", type=int, default=0, help="distinct texts before any comes again; 0: the scenario's")
    add("--bundle", action="append", help="folder of what is served; given twice, either may answer")
    add("--data", type=Path, help="a CSV of the table to take rows from (default: data/NAME.csv, else made up)")
    add("--shift", choices=sorted(SHIFTS), default=next(iter(SHIFTS)), help="drift: what the mix changes to")
    add("--key-file", default="", help="file of the API key, where the service needs one")
    _add_others(add)


def _add_others(add: Any) -> None:
    """Those that ./run load hands on as they are."""
    add("--closed", action="store_true", help="closed model: each user asks again when it has its answer")
    add("--think", type=float, default=0.0, help="closed model: seconds between an answer and the next request")
    add("--arrivals", choices=("poisson", "constant"), default="poisson", help="open model: how requests are spaced")
    add("--repeats", type=float, default=0.0, help="share of rows that were sent a moment ago")
    add("--kinds", default="", help="kinds of request and weights, as predict=9,batch=1, instead of the scenario's")
    add("--sizes", default="", help="rows of batches, as 8,64, instead of the scenario's")
    add("--shift-after", type=float, metavar="SECONDS", help="drift: when; at half of the time if it is not given")
    add("--limits", default=str(LIMITS), help="file of limits")
    add("--baseline", default="", help="summary.json of an earlier run, to compare latencies with")
    add("--baseline-ratio", type=float, default=1.5, help="how many times the baseline's a latency may be")
    add("--results", default="", help="folder for the report; by default one of loadtest/results/")
    add("--allow-remote", action="store_true", help="put load on a host that is not this machine")


def add_handed_on(parser: ArgumentParser) -> None:
    """What ./run load takes beside its own flags: all that follows them goes to locust."""
    _add_others(parser.add_argument_group("of the load").add_argument)
    add = parser.add_argument_group("of locust").add_argument
    add("--csv", metavar="PREFIX", help="its statistics: PREFIX_stats.csv, PREFIX_failures.csv and others")
    add("--csv-full-history", action="store_true", help="with --csv: PREFIX_stats_history.csv by kind of request")
    add("--html", metavar="FILE", help="its report")
    add("--json-file", metavar="FILE", help="the same as JSON, in FILE.json")
    add("--logfile", metavar="FILE", help="its log, instead of standard error")
    add("--loglevel", "-L", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), help="(default: WARNING)")
    add("--web-port", "-P", type=int, metavar="PORT", help="with --web: where its page is (default: 8089)")
    add("--web-base-path", metavar="PATH", help="with --web: below which path")
    add("--tls-cert", metavar="FILE", help="with --web: its page over HTTPS")
    add("--tls-key", metavar="FILE", help="the certificate's key")
    add("--print-stats", action="store_true", help="with --web: statistics on the terminal too")


def refuse_unknown(parser: ArgumentParser, words: Sequence[str]) -> None:
    """End with exit code 2 where words are left that no flag takes."""
    for word in words:
        flag = word.partition("=")[0]
        why = next((why for flags, why in REFUSED.items() if flag in flags), None)
        if why is not None:
            parser.error(f"{flag} of locust is not taken: {why}")
        near = difflib.get_close_matches(flag, parser._option_string_actions, n=1)
        parser.error(f"there is no {word}" + (f"; did you mean {near[0]}?" if near else ""))


def handed_on(parser: ArgumentParser, options: Namespace) -> list[str]:
    """The words for locust. Ends with exit code 2 where flags do not go together, or a file has no folder."""
    if options.csv_full_history and not options.csv:
        parser.error("--csv-full-history needs --csv")
    own = ArgumentParser(add_help=False)
    add_handed_on(own)
    words: list[str] = []
    for action in own._actions:
        value = getattr(options, action.dest)
        if value == action.default:
            continue
        if action.dest in FOR_WEB and not options.web:
            parser.error(f"{action.option_strings[0]} is for --web")
        if action.dest in FILES:
            value = _path(parser, action.option_strings[0], value)
        words += [action.option_strings[0]] + ([] if value is True else [str(value)])
    return words


def _path(parser: ArgumentParser, flag: str, value: str) -> str:
    path = Path(value).absolute()
    if flag == "--json-file":
        # Locust adds it.
        path = path.with_suffix("") if path.suffix == ".json" else path
    if flag in ("--limits", "--baseline"):
        if not path.is_file():
            parser.error(f"{flag}: there is no file {value}")
    elif flag != "--results" and not path.parent.is_dir():
        parser.error(f"{flag}: there is no folder {path.parent} to write {path.name} to")
    return str(path)
