"""W3C Trace Context, level 1: which headers are continued."""

import re

import pytest

from service.http.tracing import TRACEPARENT, TraceContext

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    "header", [f"00-{ID}-{SPAN}-01", f"00-{ID}-{SPAN}-00", f"00-{ID}-{SPAN}-03", f" 00-{ID}-{SPAN}-01 ",
               f"cc-{ID}-{SPAN}-01", f"cc-{ID}-{SPAN}-01-what.the.future.holds"],
)  # fmt: skip
def test_a_valid_trace_goes_on(header: str) -> None:
    trace = TraceContext.of(header)
    assert (trace.trace_id, trace.parent_id) == (ID, SPAN)
    assert trace.span_id != SPAN
    # Level 1 knows one flag; the others are not passed on.
    assert trace.header == f"00-{ID}-{trace.span_id}-{header.strip()[53:55].replace('03', '01')}"


@pytest.mark.parametrize(
    "header",
    ["", "00", f"00-{ID}-{SPAN}", f"ff-{ID}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{ID}-{'0' * 16}-01",
     f"00-{ID.upper()}-{SPAN}-01", f"00-{ID}-{SPAN}-01-more", f"00-{ID[1:]}-{SPAN}-01", f"00-{ID}-{SPAN}-0x",
     f"cc-{ID}-{SPAN}-01.more", f"00-{ID}-{SPAN}-01,00-{ID}-{SPAN}-01", "é" * 55],
)  # fmt: skip
def test_another_begins_here(header: str) -> None:
    one, other = TraceContext.of(header), TraceContext.of(header)
    assert one.parent_id is None
    assert one.trace_id != other.trace_id
    assert TRACEPARENT.fullmatch(one.header)
    assert re.search(r"-00$", one.header)
