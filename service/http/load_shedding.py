"""Early rejection: while a client's next row could not be answered in time, its requests are not even read.

The time that a rejection costs is taken from the model; the answer is the same as that of the queue.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from service.http.access import Access
from service.http.body.request_body import TIMEOUT_HEADER, deadline_seconds
from service.http.errors import ServiceError
from service.inference.errors import QueueFull

PATHS = frozenset({"/v1/predict", "/v1/predict/batch", "/v1/explain"})
"""Of routes whose every valid request has a row at least."""


class Admission(Protocol):
    """What the batcher says of its queue."""

    def saturated(self, more: int = 0) -> bool: ...

    def refusal(self, client: str, rows: int, timeout_seconds: float) -> QueueFull | None: ...


class LoadShedder:
    """Decides which requests are rejected before anything but their head is read.

    A server reads the heads of a thousand requests at once, and only then do the first of them reach the queue. So
    those that are admitted but not ``started`` are counted here.
    """

    def __init__(self, admission: Admission, access: Access, timeout_seconds: float):
        self._admission, self._access, self._timeout_seconds = admission, access, timeout_seconds
        self._pending, self._admitted = 0, Counter[str]()
        # By client and timeout: the next ones in the same moment are refused alike.
        self._refused: dict[tuple[str, float], QueueFull] = {}

    def applies(self, scope: Any, started: bool) -> bool:
        """Whether a request may be rejected here at all; ``started`` if it has its task already."""
        if scope["method"] != "POST" or scope["path"] not in PATHS:
            return False
        if not started:
            if self._pending == 0:
                # Before the loop looks for more requests, those of now reach the queue.
                asyncio.get_running_loop().call_soon(self._reset)
            self._pending += 1
        return self._admission.saturated(0 if started else self._pending)

    def refusal(self, scope: Any, headers: Mapping[str, str], started: bool) -> QueueFull | None:
        """Why a request to which this applies is rejected, or None. A client that has no access hears of that later."""
        try:
            client = self._access.client(scope)
            seconds = deadline_seconds(headers.get(TIMEOUT_HEADER.lower()), self._timeout_seconds)
        except ServiceError:
            return None
        if started:
            return self._admission.refusal(client, 1, seconds)
        known = self._refused.get((client, seconds))
        refusal = known or self._admission.refusal(client, 1 + self._admitted[client], seconds)
        if refusal is None:
            self._admitted[client] += 1
        else:
            self._refused[client, seconds] = refusal
        return refusal

    def _reset(self) -> None:
        self._pending = 0
        self._admitted.clear()
        self._refused.clear()
