"""The file of the key that a load is sent with."""

from pathlib import Path

import pytest

from loadtest.traffic.key import key_headers
from service.http.keys import new_key


def test_the_one_line_of_the_file_is_sent(tmp_path: Path) -> None:
    key, _ = new_key("load", ["predict"])
    path = tmp_path / "load.key"
    path.write_text(f"{key}\n")
    assert key_headers(str(path)) == {"Authorization": f"Bearer {key}"}
    assert key_headers("") == {}


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"two words", b"ek_1\nek_2\n", b"k" * 129, "ek_ü".encode(), b"\xff", b'{"keys": []}']
)
def test_a_file_that_holds_none_is_refused_without_telling_what_it_holds(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "load.key"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"must hold one API key|cannot be read") as refused:
        key_headers(str(path))
    assert "words" not in str(refused.value)
    with pytest.raises(ValueError, match=r"none.key of the key cannot be read: .*No such file"):
        key_headers(str(tmp_path / "none.key"))
