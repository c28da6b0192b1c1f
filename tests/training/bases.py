"""A pretrained BERT that is small enough to be trained in a second."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from models.bert.tokenizer import Tokenizer
from models.bundle.weights import expected_tensors
from tests.tiny import CONFIG
from training.fit.pretrained import find_base

SMALL = {**CONFIG, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}


def write_base(folder: Path) -> Path:
    """A folder for ``--base``: random weights, wide enough that they learn."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("LayerNorm.weight"):
            return np.ones(shape, np.float32)
        return np.zeros(shape, np.float32) if name.endswith("bias") else rng.normal(0, 0.2, shape).astype(np.float32)

    shapes = {name: shape for name, shape in expected_tensors(SMALL).items() if name.startswith("bert.")}
    save_file({name: drawn(name, shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SMALL))
    (folder / "tokenizer.json").write_text(Tokenizer.load(find_base(None)[1]).to_json())
    return folder
