"""Every knob of the service, from a file, from ``EVENKEEL_*`` variables and from flags, which win."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from models.bundle.precisions import FULL, PRECISIONS
from models.decisions.costs import EXPLAINED, CostsError, parse_costs
from models.engines.choice import ENGINES
from service.config_file import ConfigError, read_config

PREFIX = "EVENKEEL_"
CONFIG = f"{PREFIX}CONFIG"
NO_STORE = "none"
SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
DRIFT_STREAMS = 3
"""Tests that alarm each by itself, at most once in its run length: so many times as often does one of them."""


class SettingsError(ValueError):
    """A setting with a value that is not accepted; the message names it."""


class Settings(Struct, frozen=True, kw_only=True):
    """The fields' descriptions are the help texts."""

    bundle: Annotated[
        str,
        Meta(
            description="folder of the bundle to serve, or s3://BUCKET/PREFIX, with @VERSION for another than the last"
        ),
    ] = "artifacts/titanic"
    bundles: Annotated[
        str, Meta(min_length=1, description="folder where bundles from s3:// are kept, the four used last")
    ] = "artifacts/bundles"
    require_signature: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="public keys, a PEM file or a folder of them; serve only what one of them signed"),
    ] = None
    engine: Annotated[
        str,
        Meta(
            pattern=f"^({'|'.join(ENGINES)})$",
            description="what computes: mlx, native (own kernels), onnx (ONNX Runtime), or auto: what is fastest here",
        ),
    ] = "auto"
    precision: Annotated[
        str,
        Meta(
            pattern=f"^({'|'.join(PRECISIONS)})$",
            description="of the weights: float32, float16, bfloat16 or int8 (on a CPU float32 or int8); other than "
            "float32 only where python -m training precision has measured it and not refused",
        ),
    ] = FULL
    shadow: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="a second bundle, that answers nobody, and has its agreement with the first counted"),
    ] = None
    host: Annotated[str, Meta(description="address to listen on; the default is reached from this machine only")] = (
        "127.0.0.1"
    )
    keys: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="file of API keys, made by python -m service keys; without it no key is needed, which "
            "only a loopback address may"
        ),
    ] = None
    insecure: Annotated[
        bool, Meta(description="listen on an address that other machines reach, though there are no keys")
    ] = False
    tls_certificate: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="PEM file of the certificate and its chain; the service then speaks HTTPS only"),
    ] = None
    tls_key: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="PEM file of the certificate's private key, where it is not in the same file"),
    ] = None
    tls_client_ca: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="PEM file of authorities; only clients with a certificate of theirs may connect"),
    ] = None
    allowed_hosts: Annotated[
        str,
        Meta(
            description="host names that are answered to, separated by commas, without ports, or *; by default those "
            "of this machine on loopback without keys, else any"
        ),
    ] = ""
    trusted_proxies: Annotated[
        str,
        Meta(
            description="addresses or networks of proxies, separated by commas, whose X-Forwarded-For tells which "
            "client asks; by default nobody's",
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[a-z0-9.\[\]:-]+(, *https?://[a-z0-9.\[\]:-]+)*)?\Z",
            description="origins, as https://example.org or http://localhost:3000, separated by commas, whose scripts "
            "may read the answers; by default none",
        ),
    ] = ""
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8000
    max_body_bytes: Annotated[
        int,
        Meta(
            ge=1024, le=1 << 30, description="largest request body; 1024 rows of ten fields need about half a megabyte"
        ),
    ] = 1 << 20
    max_batch_rows: Annotated[
        int,
        Meta(
            ge=1, le=4096, description="rows of one inference; more holds the next request longer, gains little past 64"
        ),
    ] = 64
    max_queue_rows: Annotated[
        int,
        Meta(ge=1024, le=1 << 20, description="rows that may wait; past it requests get 429. About seconds × rows/s"),
    ] = 4096
    cache_rows: Annotated[
        int,
        Meta(ge=0, le=1 << 24, description="distinct texts whose logit is kept, about 200 bytes each; 0 keeps none"),
    ] = 1 << 16
    timeout_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="a request not answered after this gets 504 and leaves the queue")
    ] = 30.0
    read_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="for a request's head to come in, and for its body with a second more for each 4 KiB; "
            "past it 408 and the connection ends",
        ),
    ] = 20.0
    idle_seconds: Annotated[
        float,
        Meta(ge=1, le=86_400, description="between two requests of a connection; longer than a balancer keeps its own"),
    ] = 75.0
    max_connections: Annotated[
        int,
        Meta(
            ge=1,
            le=1 << 20,
            description="open connections; past it a new one ends the one that has waited longest for a request",
        ),
    ] = 4096
    stall_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="an inference that takes longer is given up: its requests get 503, the model is loaded anew",
        ),
    ] = 60.0
    grace_seconds: Annotated[
        float,
        Meta(
            ge=0, le=600, description="between SIGTERM, when readiness turns red, and the stop; let the balancer notice"
        ),
    ] = 1.0
    target_prevalence: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(description="share of the positive one of two classes where it serves, if it is not the bundle's own"),
    ] = None
    costs: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="costs of mistakes, by which answers have a decision, if they are not the bundle's own: "
            + EXPLAINED
        ),
    ] = None
    drift_false_alarm_every: Annotated[
        str,
        Meta(
            pattern=r"^[0-9]+(\.[0-9]+)?[hdwy]\Z",
            description="time between two false drift alarms, of all tests together, on average at least, at the "
            "expected rate: as 12h, 90d, 26w or 1y",
        ),
    ] = "90d"
    expected_rate: Annotated[
        float,
        Meta(gt=0, le=1e7, description="rows per second that this process is expected to answer on average"),
    ] = 25.0
    drift_run_length: Annotated[
        Annotated[float, Meta(ge=100, le=1e15)] | None,
        Meta(
            description="rows of a stream between two of its false drift alarms, on average at least, in place of the "
            "two settings above"
        ),
    ] = None
    drift_dead_band: Annotated[
        float, Meta(ge=0, le=0.5, description="miscalibration that outcomes may show without an alarm, in probability")
    ] = 0.05
    recalibrate_online: Annotated[
        bool,
        Meta(
            description="keep an offset and a slope on the probabilities of two classes up to date from outcomes, "
            "as their last calibration step"
        ),
    ] = False
    state: Annotated[
        Annotated[str, Meta()] | None,
        Meta(
            description="folder where the drift tests outlast a restart; the default is state beside the bundle, "
            "and an empty value keeps none"
        ),
    ] = None
    store: Annotated[
        str,
        Meta(
            min_length=1,
            description="where predictions and outcomes are kept: a SQLite file, a postgresql:// URL, or none",
        ),
    ] = "artifacts/state/predictions.sqlite"
    store_inputs: Annotated[
        str,
        Meta(
            pattern="^(row|hash|none)$",
            description="what the store keeps of a row: row (all fields, which training can read again), hash or none",
        ),
    ] = "none"
    store_max_rows: Annotated[
        int, Meta(ge=1, le=10**9, description="predictions kept; past it the oldest go. 100 to 500 bytes each")
    ] = 1_000_000
    store_max_days: Annotated[
        float, Meta(gt=0, le=36_500, description="days that a prediction and its outcome are kept")
    ] = 90.0
    store_queue_rows: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 20,
            description="predictions that may wait to be written; past it none is logged",
        ),
    ] = 1 << 14
    log_level: Annotated[
        str, Meta(pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")
    ] = "info"
    log_format: Annotated[
        str, Meta(pattern="^(auto|json|text)$", description="json, text, or auto: text to a terminal, JSON to all else")
    ] = "auto"
    log_requests: Annotated[
        str,
        Meta(
            pattern="^(all|problems|none)$",
            description="requests that get a log line: all, problems (status 400 and above) or none",
        ),
    ] = "all"

    @property
    def run_length(self) -> float:
        """Rows of a stream between two of its false drift alarms, on average at least."""
        if self.drift_run_length is not None:
            return self.drift_run_length
        every = float(self.drift_false_alarm_every[:-1]) * SECONDS[self.drift_false_alarm_every[-1]]
        return DRIFT_STREAMS * self.expected_rate * every


def read_settings(environment: Mapping[str, str], arguments: Sequence[str]) -> Settings:
    """Settings from a file, then from the environment, then from flags; raises SettingsError, or exits with 2 on
    unknown flags."""
    return with_origins(environment, arguments)[0]


def with_origins(environment: Mapping[str, str], arguments: Sequence[str]) -> tuple[Settings, dict[str, str], bool]:
    """The settings, where each that is no default came from, and whether they are only to be printed."""
    fields = Settings.__struct_fields__
    given = vars(_parser().parse_args(arguments))
    only_print, config = given.pop("print_config"), given.pop("config") or environment.get(CONFIG)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if config:
        try:
            values = read_config(config, fields)
        except ConfigError as error:
            raise SettingsError(str(error)) from error
        origins = dict.fromkeys(values, config)
    for variable, value in environment.items():
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or variable == CONFIG:
            continue
        if name not in fields:
            raise SettingsError(f"{variable} is not a setting; see --help")
        values[name], origins[name] = value, variable
    for name, value in given.items():
        if value is not None:
            values[name], origins[name] = value, _flag(name)
    for name, value in values.items():
        _check(name, value, origins[name])
    settings = msgspec.convert(values, Settings, strict=False)
    _check_costs(settings.costs, origins)
    if not 100 <= settings.run_length <= 1e15:
        raise SettingsError(
            f"drift_false_alarm_every {settings.drift_false_alarm_every} at an expected_rate of "
            f"{settings.expected_rate:g} makes a run length of {settings.run_length:g} rows; it must be from 100 to "
            "1e15"
        )
    if settings.recalibrate_online and settings.store == NO_STORE:
        raise SettingsError("recalibrate_online learns from outcomes, and a service whose store is none takes none")
    return settings, origins, only_print


def _check(field: str, value: Any, origin: str) -> None:
    kind = next(info.type for info in msgspec.structs.fields(Settings) if info.name == field)
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{field} ({origin}) is {value!r}: {error}") from error


def _check_costs(costs: str | None, origins: Mapping[str, str]) -> None:
    try:
        if costs is not None:
            parse_costs(costs)
    except CostsError as error:
        raise SettingsError(f"costs ({origins['costs']}) is {costs!r:.200}: {error}") from error


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve a bundle: calibrated probabilities over HTTP, with diagnostics and Prometheus counters.",
        epilog="python -m service score IN.csv OUT.csv scores a file instead. "
        f"Each flag is also an environment variable: --max-batch-rows is {PREFIX}MAX_BATCH_ROWS; --config is {CONFIG}.",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file of settings by these names; variables and flags win"
    )
    parser.add_argument("--print-config", action="store_true", help="print all settings and where each came from")
    for field in msgspec.structs.fields(Settings):
        described = next(meta for meta in field.type.__metadata__ if isinstance(meta, Meta))
        flag = _flag(field.name)
        default = "" if field.default is None else f" (default: {field.default})"
        # A switch may stand alone.
        switch: dict[str, Any] = {"nargs": "?", "const": "true"} if isinstance(field.default, bool) else {}
        parser.add_argument(flag, metavar="VALUE", help=f"{described.description}{default}", **switch)
    return parser
