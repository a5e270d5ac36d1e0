"""Events as consumers get them: CloudEvents 1.0 in the JSON format."""

from typing import Any

from service.db.events import ERASED, Event
from service.times import rfc3339

SPEC_VERSION = "1.0"


def schema_path(type_: str) -> str:
    return f"/schemas/events/{type_}/1"


def cloud_event(event: Event, *, public_url: str) -> dict[str, Any]:
    """One event's body, the same on every transport. `sequence` sorts as text and as a number."""
    body = {
        "specversion": SPEC_VERSION,
        "id": str(event.id),
        "source": f"/greenroom/{event.organisation_id}",
        "type": event.type,
        "subject": event.subject,
        "time": rfc3339(event.time),
        "datacontenttype": "application/json",
        "dataschema": public_url + schema_path(event.type),
        "sequence": f"{event.sequence:020d}",
        "data": event.data,
    }
    if event.data == ERASED:  # which no schema of a type describes
        del body["dataschema"]
    return body if event.traceparent is None else {**body, "traceparent": event.traceparent}
