"""The way of POST /v1/predict: which of our files one real request enters, in the order in which it comes to them.

    ./run python -m benchmarks.trace_request [--bundle DIR]

The service runs in this process, on a port of its own and with a store. Every thread is watched from a request's first
byte until its answer is read and its row is in the store. A request before it fills what is made once. What runs by the
clock, without any request, is left out.
"""

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from service.assembly import make_app
from service.http.server import make_server
from service.settings import Settings

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "service")
WARM, TRACED = {"pclass": 3, "sex": "male"}, {"pclass": 1, "sex": "female", "age": 29, "fare": 100}
SECONDS = 1.0
"""For the store's thread to write what an answer left to it, and for what runs by the clock to run."""


class Trace:
    """Functions of ours that are entered, in order."""

    def __init__(self) -> None:
        self.functions: dict[tuple[str, str], None] = {}
        self._prefixes = tuple(f"{ROOT / name}/" for name in PACKAGES)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """As `sys.setprofile` calls it."""
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(self._prefixes):
            self.functions.setdefault((path, frame.f_code.co_qualname))

    def during(self, seconds: float, act: Callable[[], None] = lambda: None) -> list[tuple[str, str]]:
        """File and name of the functions entered while it acts, and then waits."""
        self.functions.clear()
        act()
        time.sleep(seconds)
        return list(self.functions)


@contextmanager
def running(settings: Settings, trace: Trace) -> Iterator[int]:
    """The service in threads that are traced; its port."""
    ready = threading.Event()
    app = make_app(settings, lambda _: ready.set(), lambda _: ready.set())
    server = make_server(app, app.services.batcher, settings)
    threading.setprofile(trace)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        if not ready.wait(120) or not server.started:
            raise SystemExit("trace_request: the service did not start")
        yield server.port
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
        server.should_exit = True
        thread.join()


def predict(connection: http.client.HTTPConnection, row: dict[str, Any]) -> None:
    connection.request("POST", "/v1/predict", json.dumps(row), {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise SystemExit(f"trace_request: {response.status} {content.decode()}")


def trace_request(bundle: Path) -> list[tuple[str, str]]:
    """The files that one request enters, below the project's folder, and the function by which it comes to each."""
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(bundle=str(bundle), port=0, state="", store=f"{folder}/store.sqlite")
        with running(settings, trace) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            trace.during(SECONDS, lambda: predict(connection, WARM))
            by_the_clock = trace.during(SECONDS)
            entered = trace.during(SECONDS, lambda: predict(connection, TRACED))
            connection.close()
    first: dict[str, str] = {}
    for path, function in entered:
        if (path, function) not in by_the_clock:
            first.setdefault(str(Path(path).relative_to(ROOT)), function)
    return list(first.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / Settings().bundle, metavar="DIR")
    entered = trace_request(parser.parse_args().bundle.resolve())
    for number, (path, function) in enumerate(entered, 1):
        print(f"{number:3} {path:40} {function}")
    print(f"{len(entered)} files")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
