"""Accept and Accept-Encoding, by RFC 9110, section 12.5."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder

from service.http.errors import NotAcceptable
from service.http.negotiation import coding, exposition, media_type

J, M, X = "application/json", "application/msgpack", "application/x-msgpack"
T, OM = "text/plain", "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", J),
        ("*/*", J),
        ("application/*", J),
        ("Application/JSON", J),
        (M, M),
        (X, X),
        (f"{M}, */*", M),
        (f"{M}, {J}", M),
        (f"{J}, {M}", J),
        (f"{M};q=0.5, {J}", J),
        (f"{M};q=0.5, {J};q=0.4", M),
        (f"{J};q=0, */*", M),
        (f"{J};q=0, {M};q=0, */*;q=0.1", X),
        ("text/html, application/xhtml+xml, */*;q=0.8", J),
        ("application/json;charset=utf-8", J),
        ("application/json ; q=1.000", J),
        (" , ,application/json,", J),
    ],
)
def test_the_type_that_is_wanted_most(accept: str, expected: str) -> None:
    assert media_type(accept) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "*/*;q=0", f"{J};q=0", f"{J};q=0.0, {M};q=0, application/*;q=0", f"{J};q=2", f"{J};q=nan"]
)
def test_what_cannot_be_had_is_refused_and_ours_are_named(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"application/json or application/msgpack"):
        media_type(accept)


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("X-GZIP", "gzip"),
        ("x-gzip;q=0, *;q=0.1", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("zstd;q=0, *", "gzip"),
        ("*", "zstd"),
        ("*;q=0", None),
        ("br", None),
        ("GZIP;Q=0.5", "gzip"),
        ("gzip;q=x", None),
        ("gzip;q=nan", None),
        ("gzip;q=inf", None),
    ],
)
def test_the_coding_that_is_wanted_most(accepted: str, expected: str | None) -> None:
    assert coding(accepted) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", ""),
        ("text/html", ""),
        ("*/*", T),
        ("text/*", T),
        ("application/*", OM),
        (f"{T};q=0, */*", OM),
        (f"{T};q=0", ""),
        (f"{OM};q=0.5, {T};q=0.6", T),
        (f"*/*, {OM}", OM),
        (f"{OM};version=0.0.1, {T};version=1.0.0;q=0.2", f"{T};version=1.0.0"),
        (f"{OM}; Version=1.0.0; escaping=values", f"{OM};version=1.0.0;escaping=values"),
        (f"{OM};version=2.0.0", ""),
        (f"{T};version=0.0.4;escaping=other", f"{T};version=0.0.4"),
        (f"{T};version=1.0.0;version=9", f"{T};version=1.0.0"),
        (f'{T};version="1.0.0"', ""),
    ],
)
def test_the_format_of_metrics_that_is_wanted_most(accept: str, expected: str) -> None:
    assert exposition(accept) == expected


@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from([J, M, T, OM, "*/*", ";q=", ";version=", "1.0.0", "0.5", ",", ";", "1e400", "-1", "="])
    ).map("".join)
)
def test_no_header_is_a_fault_of_ours(header: str) -> None:
    assert coding(header) in (None, "gzip", "zstd")
    _, content_type = choose_encoder(exposition(header))
    assert content_type.startswith((T, OM))
    with contextlib.suppress(NotAcceptable):
        assert media_type(header).startswith("application/")
