"""The arguments of a Serve application → settings of its replicas."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from service.http import listener
from service.settings import Settings, SettingsError, read_settings

OF_THE_PROXY = ("host", "tls_certificate", "tls_key", "tls_client_ca")


def as_flags(arguments: Mapping[str, Any]) -> list[str]:
    """Settings by name → flags of ``python -m service``; raises SettingsError."""
    for name in arguments:
        if name in OF_THE_PROXY:
            raise SettingsError(f"{name} is no setting of a replica: Ray Serve's http_options say where it listens")
        if name not in Settings.__struct_fields__:
            raise SettingsError(f"{name} is not a setting; there are {', '.join(Settings.__struct_fields__)}")
    return [f"--{name.replace('_', '-')}={_text(value)}" for name, value in arguments.items()]


def replica_settings(flags: Sequence[str], environment: Mapping[str, str], host: str) -> Settings:
    """Settings of a replica whose machine has the address ``host`` in the cluster; raises SettingsError.

    It listens there too, so on other than loopback it needs keys, or ``insecure``. ``port`` is that of the first slot
    (`deploy.ray.slot`), the next has the next; 0, which it is unless the flags name one, is any.
    """
    settings = read_settings(environment, ["--port=0", *flags])
    return listener.checked(msgspec.structs.replace(settings, host=host))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
