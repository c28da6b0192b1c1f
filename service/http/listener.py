"""Where the service may listen, and with which certificate."""

import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.http.connections import RejectEarly
from service.settings import Settings, SettingsError

LOGGER = logging.getLogger("evenkeel")
LOOPBACK = "localhost,127.0.0.1,::1"


def checked(settings: Settings) -> Settings:
    """Settings that may be served with; raises SettingsError.

    Without keys that is on loopback alone, where who is on this machine may do all, unless ``insecure`` says otherwise.
    A web page from elsewhere could still reach it by a host name of its own that points here (DNS rebinding), so only
    loopback's own names are answered to then.
    """
    if settings.keys is not None:
        return settings
    if loopback(settings.host):
        names = settings.allowed_hosts or f"{LOOPBACK},{settings.host}"
        return msgspec.structs.replace(settings, allowed_hosts=names)
    if not settings.insecure:
        raise SettingsError(
            f"{settings.host} is reached from other machines, and without keys anybody there may use the service and "
            "acknowledge its alarms: give it keys (--keys; python -m service keys makes them), listen on 127.0.0.1, or "
            "say --insecure"
        )
    return settings


def loopback(host: str) -> bool:
    """Whether a name or an address stands for this machine alone; raises SettingsError if it stands for nothing."""
    try:
        addresses = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"host is {host!r}, which cannot be found: {error}") from error
    return all(ipaddress.ip_address(str(address[0])).is_loopback for *_, address in addresses)


def warn(settings: Settings) -> None:
    """Log what an operator may not have meant."""
    if loopback(settings.host):
        return
    if settings.keys is None:
        LOGGER.warning("no key is needed, and %s is reached from other machines (--insecure)", settings.host)
    elif settings.tls_certificate is None:
        LOGGER.warning("keys and answers travel unencrypted unless something before this service speaks TLS")


def proxies(settings: Settings) -> dict[str, Any]:
    """uvicorn's settings for whose word is taken on where a request came from; raises SettingsError.

    Clients take turns by that address, so whoever may name it may have as many turns as it likes. uvicorn by itself
    believes everybody on this machine.
    """
    trusted = [proxy.strip() for proxy in settings.trusted_proxies.split(",") if proxy.strip()]
    for proxy in trusted:
        try:
            network = ipaddress.ip_network(proxy)
        except ValueError as error:
            raise SettingsError(
                f"trusted_proxies names {proxy!r}; give addresses or networks, as 10.0.0.5 or 10.0.0.0/24: {error}"
            ) from error
        if network.prefixlen == 0:
            raise SettingsError(
                f"trusted_proxies names {proxy!r}, which is everybody: every client could then choose its address"
            )
    return {"proxy_headers": bool(trusted), "forwarded_allow_ips": trusted}


def behind_proxies(trusted: Sequence[str], reject_early: RejectEarly) -> RejectEarly:
    """``reject_early`` with the client's address in the scope as uvicorn's middleware gives it to the application."""

    async def nobody(scope: Any, receive: Any, send: Any) -> None: ...

    named = ProxyHeadersMiddleware(nobody, list(trusted))

    def rejection(scope: Any) -> Sequence[Any] | None:
        with contextlib.suppress(StopIteration):
            # It waits for nothing, so its first step is all of it.
            named(scope, None, None).send(None)  # type: ignore[arg-type]
        return reject_early(scope)

    return rejection


def tls(settings: Settings) -> dict[str, Any]:
    """uvicorn's settings for TLS, none without a certificate; raises SettingsError."""
    files = {
        "tls_certificate": settings.tls_certificate, "tls_key": settings.tls_key,
        "tls_client_ca": settings.tls_client_ca,
    }  # fmt: skip
    for name, path in files.items():
        if path is not None:
            try:
                Path(path).open("rb").close()
            except (OSError, ValueError) as error:
                raise SettingsError(f"{name} is {path!r}, which cannot be read: {error}") from error
            if settings.tls_certificate is None:
                raise SettingsError(f"{name} needs tls_certificate beside it")
    if settings.tls_certificate is None:
        return {}
    clients = {"ssl_ca_certs": settings.tls_client_ca, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return {
        "ssl_certfile": settings.tls_certificate, "ssl_keyfile": settings.tls_key,
        **(clients if settings.tls_client_ca is not None else {}),
    }  # fmt: skip
