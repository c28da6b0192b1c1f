"""A connection to Ray: to a running cluster by its address, or to one of this machine alone, which ends with it."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.engines.engine import usable_cores

OBJECT_STORE_BYTES = 512 << 20
"""Shared memory of a cluster of this machine alone: through it go paths, and for training the base model."""
LOOPBACK = ("127.0.0.1", "localhost")
NO_RAY = (
    "Ray is not installed in this environment; ./run score and ./run train install it when they are given --engine ray "
    "(by hand: ./run setup cluster, which makes .venv-cluster)"
)


class ClusterError(Exception):
    """Ray is not there, or the cluster is not; the message says what to do."""


@contextmanager
def connected(address: str | None, packages: tuple[str, ...]) -> Iterator[int]:
    """Be connected to the cluster at ``address``, to one of this machine when None; yields its cores.

    The machines of a cluster get our ``packages`` from here; what these import must be installed there. Raises
    ClusterError.
    """
    # Read by Ray when it is imported.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    if address is None or address.startswith(LOOPBACK):
        # Or else it takes the machine's outer address for its own.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if address is None:
        # Whoever reaches Ray can run anything, so other users of this machine must not. By itself it would keep a token
        # in the home folder, for everybody to read.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError as error:
        raise ClusterError(NO_RAY) from error
    try:
        where = _local_cluster() if address is None else _remote_cluster(address, packages)
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **where)
    except Exception as error:  # Ray raises plain ones too, as when a busy machine starts it too slowly.
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(f"there is no Ray cluster at {address or 'this machine'}: {reason}") from error
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


def _local_cluster() -> dict[str, Any]:
    return {
        "address": "local", "num_cpus": usable_cores(), "include_dashboard": False, "_node_ip_address": "127.0.0.1",
        "object_store_memory": OBJECT_STORE_BYTES,
    }  # fmt: skip


def _remote_cluster(address: str, packages: tuple[str, ...]) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    return {"address": address, "runtime_env": {"py_modules": [str(root / name) for name in ("models", *packages)]}}
