"""Everything that is not a 2xx answers with one envelope, and `ApiError` is how handlers say so."""

from enum import StrEnum


class ErrorType(StrEnum):
    INVALID_REQUEST = "invalid_request"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    UNPROCESSABLE = "unprocessable"
    RATE_LIMIT = "rate_limit"
    QUOTA_EXCEEDED = "quota_exceeded"
    INTERNAL = "internal"
    SERVICE_UNAVAILABLE = "service_unavailable"


STATUS_OF = {
    ErrorType.INVALID_REQUEST: 400,
    ErrorType.AUTHENTICATION: 401,
    ErrorType.PERMISSION: 403,
    ErrorType.NOT_FOUND: 404,
    ErrorType.CONFLICT: 409,
    ErrorType.UNPROCESSABLE: 422,
    ErrorType.RATE_LIMIT: 429,
    ErrorType.QUOTA_EXCEEDED: 402,
    ErrorType.INTERNAL: 500,
    ErrorType.SERVICE_UNAVAILABLE: 503,
}

# what a plain HTTP status means in our words; every other 4xx is an invalid request
TYPE_OF = {status: type_ for type_, status in STATUS_OF.items()} | {410: ErrorType.NOT_FOUND}


class ApiError(Exception):
    """A refusal that the caller sees as it stands: type, stable code, a sentence, the field."""

    def __init__(
        self,
        type_: ErrorType,
        code: str,
        message: str,
        *,
        param: str | None = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.type = type_
        self.code = code
        self.message = message
        self.param = param
        self.status = status or STATUS_OF[type_]
        self.headers = headers or {}


def not_found(what: str) -> ApiError:
    return ApiError(ErrorType.NOT_FOUND, f"{what}_not_found", f"There is no such {what}.")


def missing_field(param: str, message: str | None = None) -> ApiError:
    said = message or f"{param} is required."
    return ApiError(ErrorType.UNPROCESSABLE, "missing_field", said, param=param)


def invalid_field(param: str, message: str) -> ApiError:
    return ApiError(ErrorType.UNPROCESSABLE, "invalid_field", message, param=param)


def envelope(error: ApiError, request_id: str) -> dict[str, dict[str, str | None]]:
    return {
        "error": {
            "type": error.type.value,
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "request_id": request_id,
        }
    }
