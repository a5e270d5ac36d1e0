"""Structured logs: JSON lines for machines, readable lines on a terminal. Never a URL's query.

Tracebacks go without local variables: those hold keys and signed URLs.
"""

import logging
import sys
import traceback

import structlog


def story_of(exc: BaseException) -> str:
    """What happened, fit for a log: types and places along the chain of causes.

    Never their texts: those of HTTP and database libraries quote URLs, headers and rows.
    """
    story = []
    cause: BaseException | None = exc
    while cause is not None:
        last = traceback.extract_tb(cause.__traceback__)[-1:]
        place = f" in {last[0].name}, line {last[0].lineno} of {last[0].filename}" if last else ""
        story.append(f"{type(cause).__name__}{place}")
        cause = cause.__cause__ or cause.__context__
    return "; from ".join(story)


def configure(level: str, *, terminal: bool) -> None:
    """Send everything, other libraries' records included, to standard error in one format."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
