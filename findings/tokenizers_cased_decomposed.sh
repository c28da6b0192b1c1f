#!/usr/bin/env bash
# tokenizers 0.23.3: BERT's normaliser for cased vocabularies does not compose accents, so one word in two spellings of Unicode is two tokens.
# Expected: a word and its decomposed spelling (as some file systems and keyboards give it) are the same.
# Seen: with lowercase=False "café" in NFC is found, in NFD it is [UNK]; with lowercase=True both lose their accent and are found.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check tokenizers==0.23.3
"$WORK/venv/bin/python" - <<'PYTHON'
import unicodedata
from importlib.metadata import version

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer


def tokens(lowercase):
    tokenizer = Tokenizer(WordPiece({"[UNK]": 0, "café": 1, "cafe": 2}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return [tokenizer.encode(unicodedata.normalize(form, "café")).tokens for form in ("NFC", "NFD")]


cased, uncased = tokens(False), tokens(True)
print(f"tokenizers {version('tokenizers')}: cased {cased}, uncased {uncased}")
assert cased == [["café"], ["[UNK]"]] and uncased == [["cafe"], ["cafe"]]
PYTHON
