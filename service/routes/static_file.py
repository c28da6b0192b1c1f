"""A file that is served as it is, read once."""

import hashlib
from collections.abc import Mapping

from litestar import Response
from msgspec import Struct


class StaticFile(Struct, frozen=True):
    """``tag`` is its entity tag."""

    content: bytes
    media_type: str
    tag: str

    def response(self, headers: Mapping[str, str]) -> Response[bytes]:
        """The file, kept by browsers and asked about each time: another version of the service is seen at once."""
        sent = {**headers, "Cache-Control": "no-cache", "ETag": self.tag}
        return Response(self.content, media_type=self.media_type, headers=sent)


def static_file(content: bytes, media_type: str) -> StaticFile:
    """Content as a file."""
    return StaticFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
