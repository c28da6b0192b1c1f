"""The whole application around a model that needs no time, in a process of its own."""

from pathlib import Path

import uvicorn

from models.bundle.read import read_bundle
from service.settings import Settings
from tests.service.serving import make_app
from tests.service.test_app import Deterministic


def serve(bundle: Path, store: str, port: int) -> None:
    settings = Settings(store=store, timeout_seconds=30)
    held = read_bundle(bundle)
    app = make_app(settings, lambda _: Deterministic(held))
    uvicorn.run(app, port=port, log_level="warning", access_log=False)
