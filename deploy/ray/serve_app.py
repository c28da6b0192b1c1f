"""Evenkeel on Ray Serve: each replica is the service's own application, as an ingress deployment.

    ./run cluster ray start --head --block               in a terminal of its own; Ctrl-C ends all of it
    ./run cluster serve deploy deploy/ray/serve.yaml     or: serve run

The arguments are the service's settings (docs/settings.md), without those of the HTTP server, which is Ray Serve's.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve._private import replica as of_ray

from deploy.ray.arguments import as_flags, replica_settings
from deploy.ray.replica import Replica
from service.settings import read_settings

ROOT = Path(__file__).parents[2]

OPTIONS: dict[str, Any] = {
    # The application refuses by itself what would wait too long, and makes batches of all that it has.
    "max_ongoing_requests": 1024,
    # A new replica is ready before an old one is stopped, and that one then has as long as any answer may take.
    "max_surge_percent": 50,
    "graceful_shutdown_wait_loop_s": 0.5,
    "graceful_shutdown_timeout_s": 40.0,
    "health_check_period_s": 5.0,
}


class Evenkeel:
    """What Ray Serve asks of a replica beside its application."""

    app: Replica

    def check_health(self) -> None:
        """Raises RuntimeError where only another process helps; Ray Serve then starts one."""
        if self.app.lost:
            raise RuntimeError(self.app.lost)


def evenkeel(arguments: Mapping[str, Any]) -> serve.Application:
    """The application of a Serve configuration (``import_path: deploy.ray.serve_app:evenkeel``).

    ``arguments`` are settings by name. Raises SettingsError for what none of them is, or takes.
    """
    flags = as_flags(arguments)
    read_settings(os.environ, flags)

    def build() -> Replica:
        # Paths are those of the project's folder on this machine.
        os.chdir(ROOT)
        host = ray.util.get_node_ip_address()
        _listen_there_only(host)
        return Replica(replica_settings(flags, os.environ, host))

    deployment = serve.deployment(serve.ingress(build)(Evenkeel), name="Evenkeel")
    return deployment.options(**OPTIONS).bind()


def _listen_there_only(host: str) -> None:
    """Keep the replica's port for other deployments at this machine's address in the cluster.

    Ray opens it at every address whatever the cluster's is, and takes pickled objects from who connects.
    """
    add_port = of_ray.add_port_to_grpc_server
    of_ray.add_port_to_grpc_server = lambda server, address: add_port(server, address.replace("[::]", host))
