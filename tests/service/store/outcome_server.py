"""python -m tests.service.outcome_server BUNDLE STORE PORT: the whole application around a model that needs no time."""

import sys
from pathlib import Path

import uvicorn

from models.bundle.read import read_bundle
from service.settings import Settings
from tests.service.serving import make_app
from tests.service.test_app import Deterministic


def main(bundle: str, store: str, port: str) -> None:
    settings = Settings(store=store, timeout_seconds=30)
    held = read_bundle(Path(bundle))
    app = make_app(settings, lambda _: Deterministic(held))
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
