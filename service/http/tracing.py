"""The trace of a request: its ids by W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context-1/), and
OpenTelemetry's spans where its own variables, OTEL_*, ask for them; nothing of it is imported where they do not.

No attribute of a span has a value that a row has.
"""

import logging
import random
import re
import threading
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from models.prediction import Stage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

LOGGER = logging.getLogger("evenkeel")
TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SERVICE = "evenkeel"
"""The name where OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES give none."""

MAX_STAGES = 128
"""Spans below that of one request: a stream has as many as it has lines."""

FLUSH_SECONDS = 3.0
"""For the last spans, when the service stops and whoever takes them may be gone."""


class TraceContext(Struct, frozen=True):
    """The trace that a request belongs to, the caller's span in it (None if it began here), and this one's."""

    trace_id: str
    parent_id: str | None
    span_id: str
    flags: str = "00"

    @classmethod
    def of(cls, traceparent: str) -> Self:
        """The caller's trace continued, or a new one where the header is absent or not valid (section 4.3)."""
        match = TRACEPARENT.fullmatch(traceparent.strip())
        # Ids must differ, and need not be hard to guess.
        span_id = f"{random.getrandbits(64):016x}"
        if match is None or (match[1] == "00" and match[5]):
            return cls(f"{random.getrandbits(128):032x}", None, span_id)
        return cls(match[2], match[3], span_id, f"{int(match[4], 16) & 1:02x}")

    @property
    def header(self) -> str:
        """``traceparent`` with this span as the parent."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


class RequestSpan:
    """The span of a request that is sampled; its stages are spans below it."""

    def __init__(self, tracer: "Tracer", span: "Span", inside: "Context"):
        self._tracer, self._span, self._inside, self._left = tracer, span, inside, MAX_STAGES
        self._epoch_ns = time.time_ns() - time.perf_counter_ns()

    def record(self, stages: Iterable[Stage]) -> None:
        """Add stages that have ended, as long as there is room."""
        for stage in islice(stages, self._left):
            self._left -= 1
            span = self._tracer.start_span(stage.name, self._inside, start_time=self._nanoseconds(stage.began))
            span.end(self._nanoseconds(stage.ended))

    def end(self, name: str, attributes: Mapping[str, str | int], failed: bool) -> None:
        """The request has ended; ``failed`` by a fault of ours."""
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if failed:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)
        self._span.end()

    def _nanoseconds(self, seconds: float) -> int:
        return self._epoch_ns + round(seconds * 1e9)


class Tracing:
    """Begins a span for each request. Those that are sampled are sent by a thread of the provider's."""

    def __init__(self, provider: "TracerProvider"):
        from opentelemetry import context, propagate, trace

        self._provider, self._tracer = provider, provider.get_tracer(SERVICE)
        self._extract, self._trace, self._nobody = propagate.extract, trace, context.Context()
        self._fields = {name.lower() for name in propagate.get_global_textmap().fields}

    def begin(self, headers: Mapping[str, str], method: str) -> tuple[TraceContext, RequestSpan | None]:
        """The request's place in the caller's trace, or in a new one; its span, if the trace is sampled."""
        carrier = {name: headers[name] for name in self._fields if name in headers}
        parent = self._extract(carrier) if carrier else self._nobody
        caller = self._trace.get_current_span(parent).get_span_context()
        span = self._tracer.start_span(method, parent, kind=self._trace.SpanKind.SERVER)
        own = span.get_span_context()
        context = TraceContext(
            f"{own.trace_id:032x}", f"{caller.span_id:016x}" if caller.is_valid else None, f"{own.span_id:016x}",
            f"{own.trace_flags & 1:02x}",
        )  # fmt: skip
        if not span.is_recording():
            return context, None
        return context, RequestSpan(self._tracer, span, self._trace.set_span_in_context(span, parent))

    def stop(self) -> None:
        """Send what waits."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(FLUSH_SECONDS)


def make_tracing(variables: Mapping[str, str]) -> Tracing | None:
    """What OpenTelemetry's own variables ask for; None, and a warning, where it cannot be had.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    wanted = wanted_traces(variables)
    if wanted is None:
        return None
    if wanted:
        LOGGER.warning("no traces are sent: %s", wanted)
        return None
    try:
        return Tracing(_provider())
    except ImportError:
        LOGGER.warning("no traces are sent: OpenTelemetry is not installed, which the extra otel does")
    except ValueError as error:
        LOGGER.warning("no traces are sent: a variable OTEL_* is not valid: %s", error)
    return None


def wanted_traces(variables: Mapping[str, str]) -> str | None:
    """None where no traces are asked for; else why they cannot be sent so, "" if they can."""

    def variable(*names: str) -> str:
        return next((value for name in names if (value := variables.get(name, "").strip())), "")

    exporter, endpoint = "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT"
    asked = variable(exporter, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
    if not asked or variable("OTEL_SDK_DISABLED").lower() == "true" or variable(exporter) == "none":
        return None
    if variable(exporter) not in ("", "otlp"):
        return f"OTEL_TRACES_EXPORTER is {variable(exporter)}; it must be otlp or none"
    protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        return (
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}; it must be http/protobuf, for which collectors listen on 4318"
        )
    return ""


def _provider() -> "TracerProvider":
    """OpenTelemetry's own, with sampler, limits, batches, address and names from its variables."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
