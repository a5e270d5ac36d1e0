"""Which part of some bytes a caller asks for (RFC 9110, 14). Safari plays no video without."""

from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import hdrs, web

from service.api.problem import ApiError, ErrorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes *start* to *end* (exclusive) of *size_bytes*."""

    start: int
    end: int
    size_bytes: int
    partial: bool

    @property
    def headers(self) -> dict[str, str]:
        said = {"Accept-Ranges": "bytes", "Content-Length": str(self.end - self.start)}
        if self.partial:
            said["Content-Range"] = f"bytes {self.start}-{self.end - 1}/{self.size_bytes}"
        return said


def asked_part(request: web.Request, size_bytes: int) -> Part:
    """The one range that is asked for, else all; 416 where it holds none of the bytes.

    Several ranges, units that are not bytes and malformed ones get all, as the RFC allows; so
    does `If-Range`: there is no validator that it could name.
    """
    whole = Part(start=0, end=size_bytes, size_bytes=size_bytes, partial=False)
    if hdrs.IF_RANGE in request.headers:
        return whole
    try:
        asked = request.http_range
    except ValueError:
        return whole
    if asked.start is None:
        return whole
    start, end, _ = asked.indices(size_bytes)
    if start >= end:
        raise ApiError(
            ErrorType.INVALID_REQUEST,
            "range_not_satisfiable",
            "The range lies past the end of the bytes.",
            status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            headers={hdrs.CONTENT_RANGE: f"bytes */{size_bytes}"},
        )
    return Part(start=start, end=end, size_bytes=size_bytes, partial=True)
