"""Settings from a file, and where each came from."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from service.config_file import format_config
from service.serve import serve
from service.settings import Settings, SettingsError, read_settings, with_origins


def written(folder: Path, text: str) -> Path:
    (folder / "service.toml").write_text(text)
    return folder / "service.toml"


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    config = written(tmp_path, 'port = 9001\nmax-batch-rows = 16\nread_seconds = 5\ninsecure = true\nhost = "::1"\n')
    environment = {"EVENKEEL_MAX_BATCH_ROWS": "32", "EVENKEEL_HOST": "localhost"}
    flags = ["--config", str(config), "--host", "127.0.0.2"]
    settings, origins, only_print = with_origins(environment, flags)
    found = (settings.port, settings.max_batch_rows, settings.read_seconds, settings.insecure, settings.host)
    assert found == (9001, 32, 5.0, True, "127.0.0.2")
    assert origins == {
        "port": str(config), "read_seconds": str(config), "insecure": str(config),
        "max_batch_rows": "EVENKEEL_MAX_BATCH_ROWS", "host": "--host",
    }  # fmt: skip
    assert not only_print
    assert read_settings({"EVENKEEL_CONFIG": str(config)}, []).port == 9001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-batch-row = 1", r"service\.toml: max-batch-row is not a setting; did you mean max-batch-rows\?"),
        ("zzz = 1", "zzz is not a setting; see --help"),
        ("[service]\nport = 1", "service is not a setting"),
        ("port = 70000", r"port \(.*service\.toml\) is 70000: .*65535"),
        ("port = true", r"port \(.*service\.toml\) is True"),
        ("bundle = 3", r"bundle \(.*service\.toml\) is 3"),
        ("cors-origins = []", "cors-origins must be a text, a number, true or false"),
        ("port = 1\nport = 2", r"service\.toml cannot be read: "),
        ("max-batch-rows = 1\nmax_batch_rows = 2", "is there twice, with - and with _"),
        ("config = 'other.toml'", "config is not a setting"),
    ],
)
def test_a_fault_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings({}, ["--config", str(written(tmp_path, text))])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml cannot be read: No such file"):
        read_settings({}, ["--config", str(tmp_path / "none.toml")])


def test_what_is_printed_can_be_read_again_and_says_where_it_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(tmp_path, 'port = 9001\nallowed-hosts = "a \\"quoted\\" # name"\n')
    monkeypatch.setenv("EVENKEEL_MAX_BATCH_ROWS", "32")
    monkeypatch.delenv("EVENKEEL_STORE", raising=False)
    assert serve(["--config", str(config), "--print-config", "--log-level", "debug"]) == 0
    printed = capsys.readouterr().out
    assert f"port = 9001  # {config}\n" in printed
    assert "max-batch-rows = 32  # EVENKEEL_MAX_BATCH_ROWS\n" in printed
    assert 'log-level = "debug"  # --log-level\n' in printed
    assert 'host = "127.0.0.1"  # default\n' in printed
    assert "# keys is not set\n" in printed
    monkeypatch.delenv("EVENKEEL_MAX_BATCH_ROWS")
    again = read_settings({}, ["--config", str(written(tmp_path, printed))])
    assert again == read_settings({}, ["--config", str(written(tmp_path, printed)), "--max-batch-rows", "32"])
    assert (again.port, again.allowed_hosts, again.log_level) == (9001, 'a "quoted" # name', "debug")


def test_no_password_is_printed() -> None:
    settings = Settings(store="postgresql://me:hunter2@db/x?a=b")
    printed = format_config(msgspec.structs.asdict(settings), {})
    assert "hunter2" not in printed
    assert tomllib.loads(printed)["store"] == "postgresql://me:…@db/x?a=b"
