"""What a client takes: the types of ``Accept`` and the codings of ``Accept-Encoding`` (RFC 9110, section 12.5)."""

from collections.abc import Mapping
from functools import lru_cache

from service.http.errors import SHOWN_CHARACTERS, NotAcceptable

JSON, MESSAGEPACK, BINARY = "application/json", "application/msgpack", "application/octet-stream"
MESSAGEPACK_TYPES = (MESSAGEPACK, "application/x-msgpack", "application/vnd.msgpack")
CODINGS = ("zstd", "gzip")
"""Of response bodies, best first."""

ALIASES = {"x-gzip": "gzip"}
"""Names of old clients for codings (RFC 9110, section 8.4.1.3)."""

TEXT, OPENMETRICS = "text/plain", "application/openmetrics-text"
EXPOSITIONS: Mapping[str, tuple[str, ...]] = {TEXT: ("", "0.0.4", "1.0.0"), OPENMETRICS: ("", "1.0.0")}
"""Formats of metrics, the one for whoever asks for none first → the versions that a client may name."""

ESCAPINGS = ("allow-utf-8", "underscores", "dots", "values")
"""Of names in metrics that older versions of Prometheus do not take."""

MEMORY = 256


@lru_cache(MEMORY)
def media_type(accept: str) -> str:
    """The type to answer in: that of the highest quality; of equals the one named most exactly, then first.

    Raises NotAcceptable if the header takes none of ours; an empty header takes JSON.
    """
    ranges = _weighted(accept) or [("*/*", 1.0)]
    ranked = [
        (quality, exact, -place, offer)
        for offer in (JSON, *MESSAGEPACK_TYPES)
        for quality, exact, place in [_quality(offer, ranges)]
        if quality > 0
    ]
    if not ranked:
        raise NotAcceptable(f"Accept is {accept[:SHOWN_CHARACTERS]}; this can be had as {JSON} or {MESSAGEPACK}")
    return max(ranked, key=lambda candidate: candidate[:3])[3]


@lru_cache(MEMORY)
def coding(accept_encoding: str) -> str | None:
    """The content coding to answer in, None for none."""
    wanted = {ALIASES.get(name, name): quality for name, quality in _weighted(accept_encoding)}
    ranked = [(wanted.get(name, wanted.get("*", 0.0)), -place, name) for place, name in enumerate(CODINGS)]
    quality, _, best = max(ranked)
    return best if quality > 0 else None


@lru_cache(MEMORY)
def exposition(accept: str) -> str:
    """The one range of ``Accept`` that metrics are answered by, for prometheus-client's ``choose_encoder``: by itself
    that ignores qualities, and fails at versions that are no numbers. "" where the header takes nothing of ours."""
    ranges = _ranges(accept)
    refused = {pattern for pattern, _, quality in ranges if quality == 0}
    ranked = sorted(ranges, key=lambda range: (-range[2], range[0].count("*")))
    for pattern, parameters, quality in ranked:
        offers = [offer for offer in EXPOSITIONS if pattern in _patterns(offer) and offer not in refused]
        version = parameters.get("version", "")
        if quality and offers and version in EXPOSITIONS[offers[0]]:
            escaping = parameters.get("escaping", "")
            named = {"version": version, "escaping": escaping if escaping in ESCAPINGS else ""}
            return ";".join([offers[0], *(f"{name}={value}" for name, value in named.items() if value)])
    return ""


def _quality(offer: str, ranges: list[tuple[str, float]]) -> tuple[float, int, int]:
    """The quality of an offer, by the range that names it most exactly: how exactly, and where it stands."""
    forms = _patterns(offer)
    matches = [
        (forms.index(pattern), -place, quality) for place, (pattern, quality) in enumerate(ranges) if pattern in forms
    ]
    exact, place, quality = max(matches, default=(0, 0, 0.0))
    return quality, exact, -place


def _patterns(offer: str) -> tuple[str, str, str]:
    """The ranges that take a type, the most exact last."""
    return "*/*", offer.split("/")[0] + "/*", offer


def _weighted(header: str) -> list[tuple[str, float]]:
    """The header's values with their qualities."""
    return [(value, quality) for value, _, quality in _ranges(header)]


def _ranges(header: str) -> list[tuple[str, dict[str, str], float]]:
    """The header's values with their parameters and qualities; one that is not a number from 0 to 1 takes its value
    out."""
    ranges = []
    for part in header.split(","):
        value, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if value:
            # Of one that is given twice, the first counts.
            named = {name.strip(): text.strip() for name, _, text in (one.partition("=") for one in parameters[::-1])}
            ranges.append((value, named, _number(named.pop("q", "1"))))
    return ranges


def _number(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
