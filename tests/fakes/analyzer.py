"""An analyzer without models: it reads its pipes to their ends and answers as it was told."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from validators.analysis.wire import Analysis, AnalysisRequest, ComparisonRequest
from validators.facts import PairFacts

CHUNK_BYTES = 1 << 16


def drain(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as pipe:
        return pipe.read()


@dataclass
class FakeAnalyzer:
    """Keeps what it was asked and what came through; *error* is raised instead of an answer.

    Asked a second time it gives *later*, where there is one.
    """

    answer: Analysis = field(default_factory=Analysis)
    later: Analysis | None = None
    error: Exception | None = None
    reads: bool = True  # False: hangs up at once
    alike: PairFacts = field(default_factory=PairFacts)
    requests: list[AnalysisRequest] = field(default_factory=list)
    comparisons: list[ComparisonRequest] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)

    async def analyze(self, request: AnalysisRequest, fds: Sequence[int]) -> Analysis:
        self.requests.append(request)
        if self.error is not None or not self.reads:
            for fd in fds:
                os.close(fd)
        else:
            reading = (asyncio.to_thread(drain, fd) for fd in fds)
            self.received += await asyncio.gather(*reading)
        if self.error is not None:
            raise self.error
        again = len(self.requests) > 1
        return self.later if again and self.later is not None else self.answer

    async def compare(self, request: ComparisonRequest, fds: Sequence[int]) -> PairFacts:
        self.comparisons.append(request)
        reading = (asyncio.to_thread(drain, fd) for fd in fds)
        self.received += await asyncio.gather(*reading)
        if self.error is not None:
            raise self.error
        return self.alike
