"""What a client takes: the types of ``Accept`` and the codings of ``Accept-Encoding`` (RFC 9110, section 12.5)."""

from functools import lru_cache

from service.http.errors import SHOWN_CHARACTERS, NotAcceptable

JSON, MESSAGEPACK = "application/json", "application/msgpack"
MESSAGEPACK_TYPES = (MESSAGEPACK, "application/x-msgpack", "application/vnd.msgpack")
CODINGS = ("zstd", "gzip")
"""Of response bodies, best first."""

ALIASES = {"x-gzip": "gzip"}
"""Names of old clients for codings (RFC 9110, section 8.4.1.3)."""

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


def _quality(offer: str, ranges: list[tuple[str, float]]) -> tuple[float, int, int]:
    """The quality of an offer, by the range that names it most exactly: how exactly, and where it stands."""
    forms = ("*/*", offer.split("/")[0] + "/*", offer)
    matches = [
        (forms.index(pattern), -place, quality) for place, (pattern, quality) in enumerate(ranges) if pattern in forms
    ]
    exact, place, quality = max(matches, default=(0, 0, 0.0))
    return quality, exact, -place


def _weighted(header: str) -> list[tuple[str, float]]:
    """The header's values with their qualities; one that is not a number from 0 to 1 takes its value out."""
    weighted = []
    for part in header.split(","):
        value, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if value:
            qualities = [
                text for name, _, text in (parameter.partition("=") for parameter in parameters) if name.strip() == "q"
            ]
            weighted.append((value, _number(qualities[0]) if qualities else 1.0))
    return weighted


def _number(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
