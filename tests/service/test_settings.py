import pytest

from service.settings import Settings, SettingsError, read_settings


def test_flags_win_over_the_environment_which_wins_over_defaults() -> None:
    environment = {"EVENKEEL_PORT": "9000", "EVENKEEL_MAX_BATCH_ROWS": "16", "HOME": "/"}
    settings = read_settings(environment, ["--port", "9001"])
    assert (settings.port, settings.max_batch_rows, settings.host) == (9001, 16, "127.0.0.1")
    assert read_settings({}, []) == Settings()
    assert Settings().target_prevalence is None
    assert read_settings({"EVENKEEL_TARGET_PREVALENCE": "0.2"}, []).target_prevalence == 0.2


def test_drift_has_three_settings() -> None:
    assert (Settings().drift_run_length, Settings().drift_dead_band, Settings().state) == (1e7, 0.05, None)
    given = read_settings({"EVENKEEL_DRIFT_RUN_LENGTH": "1e6", "EVENKEEL_STATE": ""}, ["--drift-dead-band", "0"])
    assert (given.drift_run_length, given.drift_dead_band, given.state) == (1e6, 0, "")
    assert read_settings({}, ["--state", "/var/lib/evenkeel"]).state == "/var/lib/evenkeel"


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({"EVENKEEL_PORT": "eighty"}, [], "port .* is 'eighty'"),
        ({}, ["--port", "70000"], "65535"),
        ({}, ["--timeout-seconds", "0"], "timeout_seconds"),
        ({"EVENKEEL_PROT": "1"}, [], "EVENKEEL_PROT is not a setting"),
        ({}, ["--log-level", "loud"], "log_level"),
        ({"EVENKEEL_PRECISION": "int4"}, [], r"precision \(EVENKEEL_PRECISION\) is 'int4'.*bfloat16\|int8"),
        ({}, ["--drift-run-length", "5"], "drift_run_length"),
        ({}, ["--drift-dead-band", "-0.1"], "drift_dead_band"),
        ({"EVENKEEL_TARGET_PREVALENCE": "0"}, [], "target_prevalence .* is '0'"),
        ({}, ["--target-prevalence", "1"], "target_prevalence .* < 1"),
        ({}, ["--target-prevalence", "nan"], "target_prevalence .* is 'nan'"),
        ({}, ["--target-prevalence", "some"], "target_prevalence .* is 'some'"),
    ],
)
def test_a_bad_value_is_named(environment: dict[str, str], arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(environment, arguments)


def test_an_unknown_flag_is_wrong_use() -> None:
    with pytest.raises(SystemExit) as left:
        read_settings({}, ["--prot", "1"])
    assert left.value.code == 2
