"""Metrics, by Prometheus' naming rules. Labels are closed sets: never a URL, never an id."""

from prometheus_client import Counter, Gauge, Histogram

HTTP_REQUESTS = Counter(
    "greenroom_http_requests_total", "Requests answered.", ["method", "route", "status"]
)
HTTP_SECONDS = Histogram(
    "greenroom_http_request_seconds", "Time to answer a request.", ["method", "route"]
)
JOBS = Counter("greenroom_job_runs_total", "Runs of work by how they ended.", ["work", "outcome"])
RETENTION = Counter(
    "greenroom_retention_removed_total", "What was past its time and is gone, by kind.", ["kind"]
)
FACTS_REUSED = Counter(
    "greenroom_facts_reused_total", "Inspections that needed no measurement: the bytes were known."
)
EGRESS_REFUSED = Counter(
    "greenroom_egress_refused_total", "Sources that were refused, by why.", ["why"]
)
EGRESS_EXCEPTIONS = Counter(
    "greenroom_egress_exceptions_total",
    "Connections to addresses that are not public, by the block that allows them.",
    ["block"],
)
QUEUE_DEPTH = Gauge("greenroom_queue_jobs", "Jobs that wait, by kind of work.", ["work"])
QUEUE_AGE = Gauge("greenroom_queue_age_seconds", "Age of the oldest waiting job.", ["work"])
OBJECTS_TO_ERASE = Gauge(
    "greenroom_objects_to_erase", "Objects that nothing points to, not erased for good yet."
)
ERASURE_AGE = Gauge(
    "greenroom_erasure_age_seconds", "How long the oldest object has waited to be erased."
)
ANALYSIS_RESTARTS = Gauge("greenroom_analysis_child_restarts", "Analysis children started again.")
SANDBOX_LAYER = Gauge(
    "greenroom_sandbox_layer", "Whether a layer confines this process's decoders.", ["layer"]
)
POSTGRES_RESTARTS = Gauge(
    "greenroom_embedded_postgres_restarts", "Embedded Postgres started again."
)
