"""The service's side of the analysis children: supervised, one request at a time each.

A child that crashes, hangs, outgrows its memory or breaks the protocol is killed with its
process group and costs the one request that it held; the next request gets a fresh child.

Memory is limited with RLIMIT_DATA, which the kernel checks on every allocation, so that no
growth is quick enough to slip past it. RLIMIT_AS would count mapped libraries and weights too:
an idle child with every model loaded maps twice what it uses. A poll of the resident set
would notice a fast grower only after it has already pushed others out.
"""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import structlog

from validators.analysis import weights
from validators.analysis.speaker_choice import EngineMissingError, SpeakerChoice
from validators.analysis.wire import (
    HEADER,
    Analysis,
    AnalysisRequest,
    ComparisonRequest,
    Request,
    WireError,
    body_bytes,
    decode_analysis,
    decode_comparison,
    encode_request,
)
from validators.errors import AnalysisCrashedError, AnalysisTimeoutError
from validators.facts import Kind, PairFacts

DEFAULT_ARGV = (sys.executable, "-P", "-m", "validators.analysis")
DEFAULT_MEMORY_BYTES = 1536 << 20
ENGINES_REQUEST = AnalysisRequest(kind=Kind.AUDIO, frames=None, samples=False)

_TAIL_BYTES = 4096  # of a child's output, kept to explain its death
_LAST_WORDS_S = 2.0  # a child that hung up gets this long to exit and leave its traceback
_PASSED_ENVIRONMENT = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "XDG_CACHE_HOME")

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class Analyzer:
    """Up to *children* analysis children, started when first needed and kept warm.

    A request waits for a free child; its *timeout_s* starts when it gets one. *models_dir* is
    where fetched weights are kept (None: the user's cache).
    """

    def __init__(
        self,
        *,
        timeout_s: float = 60,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        argv: Sequence[str] = DEFAULT_ARGV,
        children: int = 1,
        models_dir: Path | None = None,
        speakers: SpeakerChoice | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._models_dir = models_dir
        self._speakers = speakers or SpeakerChoice()
        self._free: asyncio.LifoQueue[_Seat] = asyncio.LifoQueue()  # last in: warm, and in cache
        environment = _environment(models_dir) | self._speakers.environment()
        self._seats = [
            _Seat(argv=tuple(argv), memory_bytes=memory_bytes, environment=environment)
            for _ in range(children)
        ]

    async def __aenter__(self) -> Self:
        for seat in self._seats:
            self._free.put_nowait(seat)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for seat in self._seats:
            await seat.clear()

    @property
    def restarts(self) -> int:
        """How many children were lost since the start, each with the request that it held."""
        return sum(seat.lost for seat in self._seats)

    async def analyze(self, request: AnalysisRequest, fds: Sequence[int]) -> Analysis:
        """The facts in what *fds* carry: the read ends that *request* announces, in its order.

        Takes *fds* over: they are closed here once the child has them, and after any error, so
        that whoever writes to the other ends sees a broken pipe. Raises AnalysisCrashedError
        or AnalysisTimeoutError; both leave a free seat for the next request. Raises ValueError
        where *fds* are not as many as announced.
        """
        return await self._serve(request, fds, decode_analysis)

    async def compare(self, request: ComparisonRequest, fds: Sequence[int]) -> PairFacts:
        """How alike the two are that *fds* carry. Otherwise as `analyze`."""
        return await self._serve(request, fds, decode_comparison)

    async def _serve(
        self, request: Request, fds: Sequence[int], decode: Callable[[bytes], _T]
    ) -> _T:
        with _Handover(fds) as handover:
            if request.descriptors != len(fds):
                raise ValueError(f"{len(fds)} descriptors for {request!r}")
            seat = await self._free.get()
            try:
                return await self._ask(seat, request, handover, decode)
            finally:
                self._free.put_nowait(seat)

    async def _ask(
        self,
        seat: "_Seat",
        request: Request,
        handover: "_Handover",
        decode: Callable[[bytes], _T],
    ) -> _T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await seat.ask(request, handover, decode)
        except TimeoutError as exc:
            await seat.lose("timeout")
            raise AnalysisTimeoutError(f"no answer within {self._timeout_s} s") from exc
        except (EOFError, OSError, WireError) as exc:
            story = await seat.lose(f"{type(exc).__name__}: {exc}")
            raise AnalysisCrashedError(story) from exc
        except asyncio.CancelledError:
            await seat.clear()  # a half-read answer must not reach the next request
            raise

    async def warm_up(self) -> dict[str, str]:
        """Start every child, have it load its models, and say which engines answer.

        Raises what `analyze` raises.
        """
        answers = await asyncio.gather(
            *(self.analyze(ENGINES_REQUEST, ()) for _ in self._seats), return_exceptions=True
        )
        engines: dict[str, str] = {}
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            engines |= answer.engines
        return engines

    async def trouble(self) -> str | None:
        """What would stop a child from starting, or None. Costs a few file look-ups, no child."""
        if any(seat.alive for seat in self._seats):
            return None
        try:
            self._speakers.expect_installed()
        except EngineMissingError as exc:
            return str(exc)
        missing = await asyncio.to_thread(
            weights.missing, self._models_dir, self._speakers.wants_weights
        )
        if missing:
            return str(weights.WeightsMissingError(missing))
        return next((seat.trouble for seat in self._seats if seat.trouble), None)

    async def ready(self) -> bool:
        """Whether a child is running or nothing is known that would stop one from starting."""
        return await self.trouble() is None


class _Handover:
    """Descriptors on their way to a child. Closed at most once, whatever happens."""

    def __init__(self, fds: Sequence[int]) -> None:
        self.fds = list(fds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


@dataclass(slots=True, kw_only=True)
class _Seat:
    """A place for one child, empty until asked."""

    argv: tuple[str, ...]
    memory_bytes: int
    environment: dict[str, str]
    child: "_Child | None" = None
    lost: int = 0
    trouble: str | None = None  # why the latest child died before it had ever answered

    @property
    def alive(self) -> bool:
        return self.child is not None and self.child.answered

    async def ask(self, request: Request, handover: _Handover, decode: Callable[[bytes], _T]) -> _T:
        if self.child is not None and self.child.hung_up:
            await self.lose("died between requests")
        if self.child is None:
            self.child = await _Child.spawn(self.argv, self.environment, self.memory_bytes)
        answer = await self.child.ask(request, handover, decode)
        self.trouble = None
        return answer

    async def lose(self, cause: str) -> str:
        """Kill the child, count it, and tell its story: the cause, its end, its last output."""
        child, self.child = self.child, None
        if child is None:  # it could not even be started
            self.trouble = cause
            return cause
        self.lost += 1
        await child.end(patience_s=0 if cause == "timeout" else _LAST_WORDS_S)
        tail = child.output.decode(errors="replace").strip()
        code = child.process.returncode
        last = tail.rpartition("\n")[2]
        story = f"{cause}; exit status {code}; {last}" if last else f"{cause}; exit status {code}"
        self.trouble = None if child.answered else story
        _log.warning("analysis child lost", cause=cause, exit_status=code, output=tail)
        return story

    async def clear(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            await child.end(patience_s=0)


@dataclass(slots=True, kw_only=True)
class _Child:
    process: Process
    channel: socket.socket  # non-blocking
    answered: bool = False
    output: bytearray = field(default_factory=bytearray)  # the tail of stdout and stderr
    drain: asyncio.Task[None] | None = None

    @classmethod
    async def spawn(
        cls, argv: tuple[str, ...], environment: dict[str, str], memory_bytes: int
    ) -> "_Child":
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                *argv,
                *(str(theirs.fileno()), str(os.getpid())),
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                stdout=PIPE,  # models print; nothing they print reaches the channel
                stderr=STDOUT,
                env=environment,
                start_new_session=True,
            )
            undo.pop_all()
        child = cls(process=process, channel=ours)
        child.drain = asyncio.create_task(child.keep_tail())
        try:
            _limit(process.pid, memory_bytes)
        except ProcessLookupError:
            pass  # it is gone: the channel will say so
        except (OSError, OverflowError, ValueError) as exc:  # nothing hostile runs without limits
            await child.end(patience_s=0)
            raise OSError(f"its memory cannot be limited to {memory_bytes} bytes: {exc}") from exc
        return child

    @property
    def hung_up(self) -> bool:
        """Whether the other end is closed: the kernel knows before the exit status is here."""
        try:
            return not self.channel.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    async def ask(self, request: Request, handover: _Handover, decode: Callable[[bytes], _T]) -> _T:
        """Send one request and its descriptors, read one answer."""
        message = encode_request(request)
        # A request is far smaller than an empty socket buffer: it goes out whole or not at all.
        if socket.send_fds(self.channel, [message], handover.fds) != len(message):
            raise WireError("a request was cut short")
        handover.close()
        body = await self._receive(body_bytes(await self._receive(HEADER.size)))
        answer = decode(body)
        self.answered = True
        return answer

    async def _receive(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        body = bytearray()
        while len(body) < size:
            part = await loop.sock_recv(self.channel, size - len(body))
            if not part:
                raise EOFError(f"hung up after {len(body)} of {size} bytes")
            body += part
        return bytes(body)

    async def keep_tail(self) -> None:
        while self.process.stdout and (part := await self.process.stdout.read(_TAIL_BYTES)):
            self.output += part
            del self.output[:-_TAIL_BYTES]

    async def end(self, *, patience_s: float) -> None:
        """Be rid of the process and all it started, and read what it had left to say."""
        self.channel.close()
        try:
            async with asyncio.timeout(patience_s):
                await self.process.wait()
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        if self.drain is not None:
            await self.drain


def _environment(models_dir: Path | None) -> dict[str, str]:
    """All that a child gets to see, but for its choice of engine: no secret, no DSN, one thread."""
    environment = {name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ}
    environment["OMP_NUM_THREADS"] = "1"  # numpy's BLAS reads it when it is loaded
    if models_dir is not None:
        environment[weights.MODELS_DIR_VARIABLE] = str(models_dir)
    return environment


def _limit(pid: int, memory_bytes: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))  # a core file would hold media
