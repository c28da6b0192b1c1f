"""Who may use which route, how fast, and under which host name; decided before a body is read.

A middleware of the whole application: it runs for each route, after routing and before anything else, and no route can
take it off. Without keys only the host name is looked at, and /admin is closed.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from litestar.types import ASGIApp, Receive, Scope, Send

from service.http.errors import (
    BadHeader,
    Misdirected,
    NotAuthenticated,
    NotPermitted,
    RateLimited,
    ServiceError,
    shortened,
)  # fmt: skip
from service.http.keys import Key, Keys, KeysError, read_keys
from service.http.keys import Scope as KeyScope
from service.inference.errors import NotReady, QueueFull
from service.settings import Settings

LOGGER = logging.getLogger("evenkeel")
Need = KeyScope | Literal["open", "any"]

ROUTES: Mapping[str, Need] = {
    # Whoever probes has no key; a page and the API's description hold nothing of anybody's.
    "/health/live": "open",
    "/health/ready": "open",
    "/v2/health/live": "open",
    "/v2/health/ready": "open",
    "/": "open",
    "/page/{}": "open",
    "/page/{}/{}": "open",
    "/schema": "open",
    "/schema/{}": "open",
    "/schema/openapi.json": "open",
    # What is served and how it fares: whoever may use the service for anything may know.
    "/v1/model": "any",
    "/v1/drift": "any",
    "/v1/drift/events": "any",
    "/v2": "any",
    "/v2/models/{}": "any",
    "/v2/models/{}/ready": "any",
    "/v2/models/{}/versions/{}": "any",
    "/v2/models/{}/versions/{}/ready": "any",
    "/v1/predict": "predict",
    "/v1/predict/batch": "predict",
    "/v1/predict/stream": "predict",
    "/v1/explain": "predict",
    "/v2/models/{}/infer": "predict",
    "/v2/models/{}/versions/{}/infer": "predict",
    "/v1/outcomes": "outcomes",
    "/v1/drift/acknowledge": "admin",
    "/admin/reload": "admin",
    "/admin/online/undo": "admin",
    "/metrics": "metrics",
}
"""What each route needs, by its template: a scope, any key, or nothing. Others open to no key."""

TRIAL_HEADER = "X-Trial"
PARAMETER = re.compile(r"\{[^}]*\}")
LOOK_SECONDS = 1.0
"""Between two looks at the file of keys: each costs microseconds, and a revoked key is refused this much later."""
SLACK_SECONDS = 1e-6
REASONS: dict[type[ServiceError], str] = {
    NotAuthenticated: "unauthenticated", NotPermitted: "forbidden", RateLimited: "rate", Misdirected: "host",
}  # fmt: skip


class Keyring:
    """The keys of a file, read again when it has changed. A file that cannot be used leaves the keys as they are."""

    def __init__(
        self,
        path: Path,
        on_change: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Raises KeysError. ``on_change`` gets whether the keys in force are the file's."""
        self._path, self._on_change, self._clock = path, on_change, clock
        self._seen, self._looked = self._signature(), clock()
        self._keys = Keys(read_keys(path))
        self._on_change(True)
        LOGGER.info("%d keys from %s", len(self._keys), path)

    def keys(self) -> Keys:
        """The keys in force."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            # Taken before the file is read: a change in between is then seen the next time.
            signature = self._signature()
            if signature != self._seen:
                self._seen = signature
                self._read()
        return self._keys

    def _read(self) -> None:
        try:
            self._keys = Keys(read_keys(self._path))
        except KeysError as error:
            self._on_change(False)
            LOGGER.error("%s; the keys read before stay in force", error)
        else:
            self._on_change(True)
            LOGGER.info("%d keys from %s, which had changed", len(self._keys), self._path)

    def _signature(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except (OSError, ValueError):
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns


class Rates:
    """A rate for each key, by the generic cell rate algorithm (ITU-T I.371): kept is when the key's rows are paid for.

    A row costs 1/rate seconds, a request at least one. What a request holds beyond its first row is known only when its
    body has been read, and charged then: one request may go past the burst, no second one, and the next wait for it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._paid: dict[str, float] = {}

    def charge(self, key: Key, rows: int, ahead: int) -> None:
        """Charge ``rows``, if the burst has room for ``ahead``; raises RateLimited with the seconds until it has."""
        if key.rows_per_second is None:
            return
        now = self._clock()
        paid = max(self._paid.get(key.id, now), now)
        wait = paid - now - (key.burst - ahead) / key.rows_per_second
        if wait > SLACK_SECONDS:
            raise RateLimited(wait - SLACK_SECONDS)
        self._paid[key.id] = paid + rows / key.rows_per_second

    def refund(self, key: Key, rows: int) -> None:
        """Take back a charge for rows that were not computed."""
        if key.rows_per_second is not None and key.id in self._paid:
            self._paid[key.id] -= rows / key.rows_per_second

    def forget_others(self, keys: Keys) -> None:
        """Keep nothing of keys that are gone."""
        if len(self._paid) > len(keys):
            self._paid = {id: paid for id, paid in self._paid.items() if id in keys}


class Access:
    """The middleware. ``hosts`` are the host names answered to, in lower case without a port; empty for any."""

    def __init__(self, keyring: Keyring | None, hosts: frozenset[str], rates: Rates | None = None):
        self._keyring, self._hosts, self._rates = keyring, hosts, rates or Rates()

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """``app`` for those admitted. Litestar's guards would do, if each call did not copy the route's handler."""

        async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
            self.admit(scope)
            await app(scope, receive, send)

        return admitted

    def admit(self, scope: Scope) -> None:
        """Raises Misdirected, NotAuthenticated, NotPermitted, RateLimited."""
        state: Any = scope["state"]
        try:
            key = self._admitted(scope)
        except ServiceError as error:
            state["context"].reason = REASONS[type(error)]
            raise
        if key is not None:
            state["key"], state["rows_paid"], state["context"].key = key, 1, key.name

    @contextmanager
    def rows(self, scope: Scope, rows: int) -> Iterator[None]:
        """Charge a request's key for rows while they are computed, less the one that was charged when the request came;
        what is refused there is taken back. Raises RateLimited."""
        state: Any = scope["state"]
        key = state.get("key")
        if key is None:
            yield
            return
        paid, state["rows_paid"] = state["rows_paid"], 0
        try:
            if rows > paid:
                self._rates.charge(key, rows - paid, 0)
        except RateLimited:
            state["rows_paid"], state["context"].reason = paid, REASONS[RateLimited]
            raise
        try:
            yield
        except (QueueFull, NotReady):
            self._rates.refund(key, rows - paid)
            state["rows_paid"] = paid
            raise

    def _admitted(self, scope: Scope) -> Key | None:
        if self._hosts:
            host = _header(scope, b"host")
            # Who sends no Host is no browser, and only a browser can be led here by a name that is not ours.
            if host is not None and host_name(host) not in self._hosts:
                raise Misdirected(host, sorted(self._hosts))
        template = str(scope["path_template"])
        need = need_of(template)
        if need == "open" or scope.get("method") == "OPTIONS":
            return None
        if self._keyring is None:
            if closed_without_keys(template):
                raise NotPermitted("this needs a key with the scope admin, and the service was started without keys")
            return None
        key = self._key(scope, self._keyring)
        if need is None:
            raise NotPermitted("no key opens this route: none of the scopes covers it")
        if need == "predict" and "trial" in key.scopes and need not in key.scopes:
            state: Any = scope["state"]
            state["trial"] = True
        elif need != "any" and need not in key.scopes:
            raise NotPermitted(f"the key does not have the scope {need}")
        self._rates.charge(key, 1, 1)
        return key

    def _key(self, scope: Scope, keyring: Keyring) -> Key:
        keys = keyring.keys()
        self._rates.forget_others(keys)
        key = keys.find(presented(scope), datetime.now(UTC))
        if key is None:
            raise NotAuthenticated
        return key

    def trial(self, scope: Scope) -> bool:
        """Whether a request's predictions are no traffic: by its key, which may do nothing else, or by its X-Trial.

        Raises BadHeader, and NotPermitted for the header with a key that lacks the scope: whoever hides rows from the
        drift tests must be allowed to.
        """
        state: Any = scope["state"]
        given = _header(scope, TRIAL_HEADER.lower().encode())
        asked = {None: False, "false": False, "true": True}.get(given and given.strip().lower())
        if asked is None:
            raise BadHeader(f"{TRIAL_HEADER} is {shortened(given or 'empty')}; it must be true or false")
        key = state.get("key")
        if asked and key is not None and "trial" not in key.scopes:
            raise NotPermitted(f"{TRIAL_HEADER} needs a key with the scope trial")
        return asked or state.get("trial", False)

    def client(self, scope: Scope) -> str:
        """Whose turn a request waits for: the name of its key, or without keys the address it comes from.

        Raises NotAuthenticated."""
        if self._keyring is not None:
            state: Any = scope["state"]
            context = state["context"]
            context.key = context.key or self._key(scope, self._keyring).name
            return str(context.key)
        return scope["client"][0] if scope["client"] else ""


def make_access(settings: Settings, on_keys_change: Callable[[bool], None]) -> Access:
    """What the settings say; raises KeysError."""
    names = {host_name(name) for name in settings.allowed_hosts.split(",")} - {""}
    keyring = None if settings.keys is None else Keyring(Path(settings.keys), on_keys_change)
    return Access(keyring, frozenset() if "*" in names else frozenset(names))


@lru_cache(512)
def need_of(template: str) -> Need | None:
    """What a route needs, by its path's template; None if that is not declared."""
    return ROUTES.get(PARAMETER.sub("{}", template))


def closed_without_keys(template: str) -> bool:
    """Whether a route is for nobody where there are no keys."""
    return template.startswith("/admin/")


def presented(scope: Scope) -> str:
    """The key that a request bears, empty for none: X-API-Key, or else Authorization: Bearer."""
    key = _header(scope, b"x-api-key")
    if key is None:
        scheme, _, credentials = (_header(scope, b"authorization") or "").partition(" ")
        key = credentials if scheme.lower() == "bearer" else ""
    return key.strip()


def _header(scope: Scope, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)


def host_name(header: str) -> str:
    """The name or address of a Host header, in lower case, without port, brackets and a last dot."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    # More than one colon and no brackets: an address as an operator writes it.
    return host if host.count(":") > 1 else host.partition(":")[0].rstrip(".")
