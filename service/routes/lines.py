"""Lines of a streamed body → rows, or problems in their place."""

import http
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from models.rows import Row
from service.http.body.decoding import decode_body
from service.http.errors import STATUS, Fault, InvalidBody, Refused, ServiceError
from service.http.negotiation import JSON

MAX_LINE_BYTES = 1 << 16


class Line(NamedTuple):
    """A line that is not blank, counted from 1 with the blank ones; without content it was too long."""

    number: int
    content: bytes | None


class Lines:
    """Pieces of a body → its lines. Holds no more than one line, and of one that is too long nothing."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES):
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._too_long = False
        self.ended = 0

    def split(self, piece: bytes) -> Iterator[Line]:
        """The lines that end in ``piece``; take them all before the next."""
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            self._hold(memoryview(piece)[start:end])
            yield from self._end()
            start = end + 1
        self._hold(memoryview(piece)[start:])

    def finish(self) -> Iterator[Line]:
        """The last line, if it has no newline."""
        if self._held or self._too_long:
            yield from self._end()

    def _hold(self, part: memoryview) -> None:
        self._too_long = self._too_long or len(self._held) + len(part) > self._max_bytes
        if self._too_long:
            self._held.clear()
        else:
            self._held += part

    def _end(self) -> Iterator[Line]:
        self.ended += 1
        content = None if self._too_long else bytes(self._held)
        self._held.clear()
        self._too_long = False
        if content is None or content.strip():
            yield Line(self.ended, content)


class LineProblem(Struct, frozen=True, kw_only=True):
    """Problem details (RFC 9457) in place of a line's prediction, or of all from ``line`` on as a stream's last."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Fault] = []
    line: int


def line_problem(line: int, status: int, detail: str, errors: Sequence[Fault] = ()) -> LineProblem:
    """What stands in a line's place."""
    title = http.HTTPStatus(status).phrase
    return LineProblem(title=title, status=status, detail=detail, errors=list(errors), line=line)


def line_refusal(line: int, error: Refused) -> LineProblem:
    """What stands in the place of a line that was refused."""
    # Only the word differs from a body's.
    detail = str(error).replace("the body", "the line", 1)
    return line_problem(line, STATUS[type(error)], detail, error.faults if isinstance(error, InvalidBody) else ())


class ParsedLine(NamedTuple):
    """A line as read: its row, or what is wrong with it."""

    line: int
    content: Row | LineProblem


def parse_line(line: Line, form: type[Struct]) -> ParsedLine:
    """A line's row of the type ``form``, read as a body of /v1/predict is."""
    if line.content is None:
        detail = f"the line is longer than {MAX_LINE_BYTES} bytes"
        return ParsedLine(line.number, line_problem(line.number, http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail))
    try:
        return ParsedLine(line.number, decode_body(line.content, JSON, form))
    except ServiceError as error:
        return ParsedLine(line.number, line_refusal(line.number, error))
