"""What can stop an inspection short of a verdict. A refusal is a Verdict, never one of these.

InspectionError          somebody of ours must act, or a retry on a fresh child may do
 |- ToolCrashedError     a media tool died of a signal, could not be started or lacks something
 |- ToolTimeoutError     it ran past its deadline and was killed with its process group
 |   `- ToolSpentError   it used up its processor time, on any machine: a medium's doing
 |- AnalysisCrashedError the analysis child died, broke the protocol or outgrew its memory
 |- AnalysisTimeoutError the analysis child ran past its deadline and was killed
 `- UnmeasuredError      nothing failed, yet a measurement that decides is missing
"""

from collections.abc import Iterator
from contextlib import contextmanager


class InspectionError(Exception):
    """No verdict could be reached. The same bytes may be tried again on a fresh child."""


class ToolCrashedError(InspectionError):
    """A media tool died of a signal, could not be started, or lacks an option or memory."""


class ToolTimeoutError(InspectionError):
    """A media tool ran past its deadline and was killed."""


class ToolSpentError(ToolTimeoutError):
    """It used up its processor time. Deadlines pass on a busy machine, too; this does not."""


class AnalysisCrashedError(InspectionError):
    """The analysis child died or broke the protocol. A fresh one serves the next request."""


class AnalysisTimeoutError(InspectionError):
    """The analysis child ran past its deadline and was killed."""


class UnmeasuredError(InspectionError):
    """Nothing failed, yet a measurement that decides is missing: what nobody saw is not good."""


@contextmanager
def one_failure() -> Iterator[None]:
    """Raise the first error of nested task groups as itself: the others are what it caused."""
    try:
        yield
    except ExceptionGroup as group:
        first: Exception = group
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from group
