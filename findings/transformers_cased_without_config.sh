#!/usr/bin/env bash
# transformers 5.24.0: AutoTokenizer lower-cases with a cased tokenizer.json where tokenizer_config.json is missing.
# Expected: the normaliser that tokenizer.json holds (lowercase false), as the tokenizers library reads it.
# Seen: "Paris" becomes "paris" for a config.json of model_type bert; any tokenizer_config.json mends it.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.24.0
"$WORK/venv/bin/python" - <<'PYTHON'
import json
import os
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

folder = Path(os.environ["WORK"]) / "model"
folder.mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris"]
tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(words)}))
alone = AutoTokenizer.from_pretrained(folder).tokenize("Paris")
(folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
beside = AutoTokenizer.from_pretrained(folder).tokenize("Paris")
print(f"transformers {version('transformers')}: tokenizers {tokenizer.encode('Paris').tokens}, alone {alone}, with a config {beside}")
assert (alone, beside) == (["paris"], ["Paris"])
PYTHON
