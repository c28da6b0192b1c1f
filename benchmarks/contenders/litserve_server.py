"""Measured beside Evenkeel: LitServe with ONNX Runtime float32, dynamic batching by LitServe itself."""

import argparse
import math
from pathlib import Path
from typing import Any

import litserve
import msgspec

from benchmarks.harness.texts import made, render


class Api(litserve.LitAPI):
    """Row → text → logit → probability. Runs in LitServe's worker process."""

    def __init__(self, bundle: Path, group_rows: int | None, max_batch_rows: int, wait_seconds: float):
        super().__init__(max_batch_size=max_batch_rows, batch_timeout=wait_seconds)
        self._bundle, self._group_rows = bundle, group_rows

    def setup(self, device: str) -> None:
        from benchmarks.contenders.onnx_forward import float32

        _, self._forward = float32(self._bundle, self._group_rows)

    def decode_request(self, request: dict[str, Any]) -> str:
        return render(msgspec.convert(request, made().struct))

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, texts: list[str]) -> list[float]:
        return self._forward(texts).tolist()  # type: ignore[no-any-return]

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def encode_response(self, output: float) -> dict[str, float]:
        return {"probability": 1 / (1 + math.exp(-output))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--group-rows", type=int, help="rows computed at once (default: the fastest, tried at the start)"
    )
    parser.add_argument("--max-batch-rows", type=int, default=64)
    parser.add_argument("--wait-seconds", type=float, default=0.0)
    options = parser.parse_args()
    api = Api(options.bundle, options.group_rows, options.max_batch_rows, options.wait_seconds)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=options.port, num_api_servers=1, log_level="warning", generate_client_file=False
    )  # fmt: skip


if __name__ == "__main__":
    main()
