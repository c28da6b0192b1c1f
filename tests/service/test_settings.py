import pytest

from service.drift.monitor import STREAMS
from service.settings import DRIFT_STREAMS, Settings, SettingsError, read_settings


def test_flags_win_over_the_environment_which_wins_over_defaults() -> None:
    environment = {"EVENKEEL_PORT": "9000", "EVENKEEL_MAX_BATCH_ROWS": "16", "HOME": "/"}
    settings = read_settings(environment, ["--port", "9001"])
    assert (settings.port, settings.max_batch_rows, settings.host) == (9001, 16, "127.0.0.1")
    assert read_settings({}, []) == Settings()
    assert Settings().target_prevalence is None
    assert read_settings({"EVENKEEL_TARGET_PREVALENCE": "0.2"}, []).target_prevalence == 0.2


def test_drift_has_five_settings() -> None:
    assert (Settings().drift_run_length, Settings().drift_dead_band, Settings().state) == (None, 0.05, None)
    given = read_settings({"EVENKEEL_DRIFT_RUN_LENGTH": "1e6", "EVENKEEL_STATE": ""}, ["--drift-dead-band", "0"])
    assert (given.drift_run_length, given.drift_dead_band, given.state) == (1e6, 0, "")
    assert read_settings({}, ["--state", "/var/lib/evenkeel"]).state == "/var/lib/evenkeel"


@pytest.mark.parametrize(
    ("flags", "rows"),
    [
        ([], 3 * 25 * 90 * 86_400),
        (["--expected-rate", "500"], 3 * 500 * 90 * 86_400),
        (["--drift-false-alarm-every", "12h"], 3 * 25 * 12 * 3600),
        (["--drift-false-alarm-every", "1.5y", "--expected-rate", "0.01"], 3 * 0.01 * 1.5 * 365 * 86_400),
        (["--drift-false-alarm-every", "1y", "--drift-run-length", "5000"], 5000),
    ],
)
def test_false_alarms_are_said_in_time(flags: list[str], rows: float) -> None:
    """Each of the three tests alarms once in so many rows, so that one of them does once in the time that was said."""
    assert len(STREAMS) == DRIFT_STREAMS
    assert read_settings({}, flags).run_length == pytest.approx(rows)


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
        ({}, ["--drift-false-alarm-every", "90 days"], "drift_false_alarm_every .* is '90 days'"),
        ({}, ["--drift-false-alarm-every", "0d"], "run length of 0 rows; it must be from 100"),
        ({}, ["--drift-false-alarm-every", "9999999y"], "it must be from 100 to 1e15"),
        ({}, ["--expected-rate", "0"], "expected_rate"),
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
