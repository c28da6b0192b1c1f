"""The API key that a load is sent with: from a file, since every user of a machine sees its command lines."""

import re
from pathlib import Path

KEY = re.compile(r"[\x21-\x7e]{1,128}")


def key_headers(path: str) -> dict[str, str]:
    """The header that bears the key in a file, its one line; none without a file. Raises ValueError."""
    if not path:
        return {}
    try:
        with Path(path).open(encoding="utf-8") as file:
            found = file.read(1024).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the file {path} of the key cannot be read: {error}") from error
    if not KEY.fullmatch(found):
        raise ValueError(
            f"the file {path} must hold one API key and nothing else, as python -m service keys new prints it"
        )
    return {"Authorization": f"Bearer {found}"}
