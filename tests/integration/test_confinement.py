"""What a decoder that was taken over could do, tried from inside the real sandbox.

The tool is a program of Python's that tries one thing and prints the errno that it got, or
ffmpeg itself. Every layer is tried alone as well, so that none hides behind another.
"""

import asyncio
import errno
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from service.domain import Work
from service.settings import Settings, SettingsError
from service.wiring import _layers, open_worker
from storage.local import LocalStore
from tests import media
from tests.api import running_api, settings_for
from validators.errors import ToolCrashedError, ToolTimeoutError
from validators.facts import StreamFacts, StreamType
from validators.media.decode import Plan, command
from validators.media.layers import REQUIRED, Layer
from validators.media.probe import UnreadableError, _arguments, probe
from validators.media.sandbox import (
    CONFINE,
    MAX_ALLOC_BYTES,
    Completed,
    Limits,
    Sandbox,
    tool_name,
)
from validators.media.seccomp import ALLOW, EQUAL, ERRNO, LOAD, RETURN, filter_for
from validators.self_check import TRIAL, layers_of

ALL = Sandbox()
ORDINARY_USER = 1  # daemon: any that is not root
SUCCESS = 0
SOUND = StreamFacts(index=0, type=StreamType.AUDIO, codec="aac")

ATTEMPT = """
import errno, os, socket, sys
def attempt():
{body}
try:
    attempt()
    print(0)
except OSError as exc:
    print(exc.errno)
except RuntimeError:
    print(errno.EAGAIN)
"""


def alone(*layers: Layer) -> Sandbox:
    return Sandbox(layers=frozenset(layers))


def program(body: str) -> list[str]:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return [sys.executable, "-I", "-S", "-c", ATTEMPT.format(body=lines)]


async def answer(body: str, sandbox: Sandbox = ALL, **options: object) -> int:
    """The errno that *body* met; 0: it succeeded."""
    completed = await sandbox.run(program(body), **options)  # type: ignore[arg-type]  # as run's
    assert completed.succeeded, completed.stderr
    return int(completed.stdout)


async def expect_good_run() -> None:
    completed = await ALL.run(["echo", "well"])
    assert completed.stdout == b"well\n"


@pytest.fixture(autouse=True, scope="module")
def _kernel() -> None:
    """Skips loudly where this kernel lacks a layer."""
    if missing := asyncio.run(layers_of(ALL)).missing:
        pytest.skip(f"this kernel lacks {missing}")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A file of somebody else's, which everybody may read."""
    path = tmp_path / "other"
    path.write_text("theirs")
    path.chmod(0o644)
    return path


def opening(path: Path, flags: str = "os.O_RDONLY") -> str:
    return f"os.close(os.open({str(path)!r}, {flags}))"


@pytest.mark.parametrize("sandbox", [ALL, alone(Layer.LANDLOCK)], ids=["all", "landlock"])
async def test_only_the_medium_is_readable(tmp_path: Path, other: Path, sandbox: Sandbox) -> None:
    medium = tmp_path / "medium"
    medium.write_text("ours")
    assert await answer(opening(medium), sandbox, reads=[medium]) == SUCCESS
    assert await answer(opening(other), sandbox, reads=[medium]) == errno.EACCES
    assert await answer("os.listdir('/')", sandbox, reads=[medium]) == errno.EACCES
    assert await answer(f"os.listdir({str(tmp_path)!r})", sandbox) == errno.EACCES
    assert await answer("open('/proc/1/environ')", sandbox) == errno.EACCES
    assert await answer(opening(other), alone(), reads=[medium]) == SUCCESS  # so it is the layer


async def test_a_link_beside_the_medium_leads_nowhere(tmp_path: Path, other: Path) -> None:
    medium, link = tmp_path / "medium", tmp_path / "link"
    medium.write_text("ours")
    link.symlink_to(other)
    assert await answer(opening(link), reads=[medium]) == errno.EACCES
    assert await answer(opening(Path(f"{medium}/../other")), reads=[medium]) == errno.ENOTDIR


@pytest.mark.parametrize(
    ("sandbox", "refused"),
    [
        (ALL, errno.EPERM),
        (alone(Layer.LANDLOCK), errno.EACCES),
        (alone(Layer.SECCOMP), errno.EPERM),
    ],
    ids=["all", "landlock", "seccomp"],
)
async def test_nothing_is_written(
    tmp_path: Path, other: Path, sandbox: Sandbox, refused: int
) -> None:
    new = tmp_path / "new"
    for flags in ("os.O_WRONLY", "os.O_RDWR", "os.O_WRONLY | os.O_TRUNC"):
        assert await answer(opening(other, flags), sandbox, reads=[other]) == refused
    assert await answer(opening(new, "os.O_CREAT | os.O_WRONLY"), sandbox) == refused
    assert await answer(f"os.unlink({str(other)!r})", sandbox) == refused
    assert await answer(f"os.mkdir({str(new)!r})", sandbox) == refused
    assert await answer(f"os.rename({str(other)!r}, {str(new)!r})", sandbox) == refused
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]
    assert other.read_text() == "theirs"


@contextmanager
def listeners(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """A TCP port, a UDP port and a Unix socket that answer whoever comes."""
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        unix.bind(str(folder / "socket"))
        unix.listen()
        yield tcp.getsockname()[1], udp.getsockname()[1], folder / "socket"


SOCKETS = [
    "socket.create_connection(('127.0.0.1', {tcp}), 2)",
    "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))",
    "socket.socket(socket.AF_INET6, socket.SOCK_STREAM).connect(('::1', {tcp}))",
    "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect('{unix}')",
    "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "socket.socketpair()",
]


@pytest.mark.parametrize("attempt", SOCKETS, ids=lambda a: a.partition("AF_")[2][:8] or a[:20])
async def test_no_socket_of_any_family_opens(tmp_path: Path, attempt: str) -> None:
    with listeners(tmp_path) as (tcp, udp, unix):
        body = attempt.format(tcp=tcp, udp=udp, unix=unix)
        for sandbox in (ALL, alone(Layer.SECCOMP)):
            assert await answer(body, sandbox) == errno.EPERM
    await expect_good_run()


async def test_each_wall_to_the_network_stands_by_itself(tmp_path: Path) -> None:
    with listeners(tmp_path) as (tcp, udp, _):
        to_tcp, to_udp = (SOCKETS[n].format(tcp=tcp, udp=udp) for n in (0, 1))
        assert await answer(to_tcp, alone()) == SUCCESS  # so the rest is the layers' doing
        assert await answer(to_udp, alone()) == SUCCESS
        assert await answer(to_tcp, alone(Layer.NAMESPACES)) == errno.ENETUNREACH
        assert await answer(to_udp, alone(Layer.NAMESPACES)) == errno.ENETUNREACH
        assert await answer(to_tcp, alone(Layer.LANDLOCK)) == errno.EACCES


async def test_an_abstract_socket_of_ours_cannot_be_reached() -> None:
    name = f"\0greenroom-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ours:
        ours.bind(name)
        ours.listen()
        body = f"socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect({name!r})"
        assert await answer(body, alone()) == SUCCESS
        assert await answer(body) == errno.EPERM
        assert await answer(body, alone(Layer.LANDLOCK)) == errno.EPERM
        assert await answer(body, alone(Layer.NAMESPACES)) == errno.ECONNREFUSED


BOMB = """
import time
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            time.sleep(61.625)
            os._exit(0)
        made += 1
finally:
    sys.stderr.write(f"forked {made}")
"""


async def test_a_fork_bomb_does_not_go_off() -> None:
    before = len(psutil.pids())
    completed = await ALL.run(program(BOMB))
    assert (int(completed.stdout), completed.stderr) == (errno.EPERM, "forked 0")
    assert len(psutil.pids()) < before + 50
    await expect_good_run()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("clone", "56, 17, 0, 0, 0, 0"),
        ("vfork", "58"),
        ("clone, of a namespace", "56, 0x10000000 | 0x00010000, 0, 0, 0, 0"),
        ("unshare", "272, 0x10000000"),
        ("ptrace", "101, 16, {parent}, 0, 0"),
        ("process_vm_readv", "310, {parent}, 0, 0, 0, 0, 0"),
        ("kill", "62, {parent}, 0"),
        ("tkill", "200, {parent}, 0"),
        ("tgkill", "234, {parent}, {parent}, 0"),
        ("fcntl, F_SETOWN", "72, 0, 8, {parent}"),
        ("ioctl, TIOCSTI", "16, 0, 0x5412, 0"),
        ("prctl, the parent's death signal", "157, 1, 0, 0, 0, 0"),
        ("prlimit, of the parent", "302, {parent}, 7, 0, 0"),
        ("mount", "165, 0, 0, 0, 0, 0"),
        ("bpf", "321, 0, 0, 0"),
        ("keyctl", "250, 0, 0, 0, 0, 0"),
        ("memfd_create", "319, 0, 0"),
        ("execveat", "322, 0, 0, 0, 0, 0"),
        ("setsid", "112"),
    ],
    ids=lambda value: value if "," not in value[:5] and not value[0].isdigit() else "",
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
async def test_calls_that_no_decoder_needs_are_refused(call: str, arguments: str) -> None:
    numbers = arguments.format(parent=os.getpid())
    body = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.syscall({numbers})\n"
    assert await answer(f"{body}raise OSError(ctypes.get_errno(), '')") == errno.EPERM, call


@pytest.mark.parametrize("number", [424, 425, 434, 435, 438, 9999])
async def test_calls_that_are_newer_are_not_there(number: int) -> None:
    """pidfd_send_signal, io_uring_setup, pidfd_open, clone3, pidfd_getfd; one of the future."""
    body = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.syscall({number}, 0)\n"
    assert await answer(f"{body}raise OSError(ctypes.get_errno(), '')") == errno.ENOSYS


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="another has no second way to call")
@pytest.mark.parametrize("number", [0x4000_0000 + 39, 0x4000_0000 + 41])
async def test_the_x32_way_around_the_table_kills(number: int) -> None:
    body = f"import ctypes\nctypes.CDLL(None).syscall({number})"
    with pytest.raises(ToolCrashedError, match="SIGSYS"):
        await answer(body)
    await expect_good_run()


async def test_threads_start() -> None:
    body = "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()"
    completed = await ALL.run(program(body))
    assert completed.stdout == b"\n0\n"


async def test_no_other_program_is_executed(tmp_path: Path) -> None:
    copied = tmp_path / "tool"
    copied.write_bytes(Path("/bin/echo").read_bytes())
    copied.chmod(0o755)
    for sandbox in (ALL, alone(Layer.LANDLOCK)):
        for path in ("/bin/echo", "/bin/sh", str(copied)):
            body = f"os.execv({path!r}, ['x'])"
            assert await answer(body, sandbox, reads=[copied]) == errno.EACCES


async def test_nobody_is_signalled_by_landlock_alone() -> None:
    assert await answer(f"os.kill({os.getpid()}, 0)", alone()) == SUCCESS
    assert await answer(f"os.kill({os.getpid()}, 0)", alone(Layer.LANDLOCK)) == errno.EPERM


async def test_four_gigabytes_are_refused() -> None:
    assert await answer("import mmap\nmmap.mmap(-1, 4 << 30)") == errno.ENOMEM
    hog = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        "held = []\nwhile True: held.append(bytearray(1 << 26))",
    ]
    completed = await ALL.run(hog)
    assert completed.status == 1
    assert completed.stderr.endswith("MemoryError\n")
    await expect_good_run()


async def test_capabilities_are_gone() -> None:
    shown = "print([line for line in open('/proc/self/status') if line.startswith('CapEff')])"
    completed = await alone().run([sys.executable, "-I", "-S", "-c", shown])
    effective = int(completed.stdout.split(b"\\t")[1][:16], 16)
    assert effective & ~(1 << 2) == 0  # all but reading, which a store may need


async def test_past_its_deadline_it_is_killed_and_nothing_stays_open() -> None:
    before = sorted(entry.name for entry in Path("/proc/self/fd").iterdir())
    late = replace(ALL, limits=Limits(wall_s=0.5))
    with pytest.raises(ToolTimeoutError):
        await answer("import time\ntime.sleep(61.875)", late)
    assert not [p for p in psutil.process_iter(["cmdline"]) if "61.875" in str(p.info["cmdline"])]
    for refused in ("os.fork()", "socket.socket()", opening(Path("/etc/passwd"))):
        assert await answer(refused) != SUCCESS
    assert sorted(entry.name for entry in Path("/proc/self/fd").iterdir()) == before
    await expect_good_run()


def wanting(path: Path, table: bytes, entries: int) -> Path:
    """A clip of which one table says that it has that many *entries*."""
    clip = bytearray(media.clip(path, seconds=1).read_bytes())
    at = clip.index(table) + 8
    clip[at : at + 4] = entries.to_bytes(4, "big")
    path.write_bytes(clip)
    return path


async def test_a_medium_that_wants_too_much_memory_is_broken(tmp_path: Path) -> None:
    """Where any recording would have had enough; else it is our limit that is too low."""
    greedy = wanting(tmp_path / "greedy.mp4", b"stts", 0x0FFF_FFFF)
    with pytest.raises(UnreadableError):
        await probe(greedy, "mp4", ALL, ffprobe=tool_name("ffprobe"), up_to_s=20)
    small = replace(ALL, limits=Limits(address_space_bytes=1 << 30))
    with pytest.raises(ToolCrashedError, match="cannot do"):
        await probe(greedy, "mp4", small, ffprobe=tool_name("ffprobe"), up_to_s=20)


async def test_no_block_is_larger_than_any_recording_needs(tmp_path: Path) -> None:
    """A table of 512 MB would fit into the address space, and is refused by -max_alloc."""
    greedy = wanting(tmp_path / "greedy.mp4", b"stco", 0x03FF_FFFF)
    argv = [tool_name("ffprobe"), *_arguments(greedy, "mp4", 20)]
    assert (await ALL.run(argv, reads=[greedy])).refused_memory
    at = argv.index("-max_alloc")
    del argv[at : at + 2]
    assert not (await ALL.run(argv, reads=[greedy])).refused_memory


def test_ffmpeg_is_told_as_well(tmp_path: Path) -> None:
    plan = Plan(signature="mp4", size_bytes=0, video=None, audio=None, up_to_s=1, max_pixels=1)
    line = command(tmp_path / "a", replace(plan, audio=SOUND), ffmpeg_name="ffmpeg")
    assert line[line.index("-max_alloc") + 1] == str(MAX_ALLOC_BYTES)


async def test_a_crash_is_a_crash_inside_too() -> None:
    with pytest.raises(ToolCrashedError, match="SIGSEGV"):
        await answer("import ctypes\nctypes.string_at(0)")


async def once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def test_one_tenants_decode_cannot_read_anothers_asset(tmp_path: Path) -> None:
    clip = media.clip(tmp_path / "clip.mp4", seconds=1)
    async with LocalStore(tmp_path / "assets") as store:
        kept = {key: await store.put(key, once(clip.read_bytes())) for key in ("a/clip", "b/clip")}
        async with (
            store.local_copy("a/clip", sha256=kept["a/clip"].sha256) as mine,
            store.local_copy("b/clip", sha256=kept["b/clip"].sha256) as theirs,
        ):
            assert (await probed(f"file:{mine}", mine)).succeeded
            refused = await probed(f"file:{theirs}", mine)
            assert not refused.stdout
            assert "Permission denied" in refused.stderr
            root = str(mine.parent)
            assert await answer(f"os.listdir({root!r})", reads=[mine]) == errno.EACCES


async def probed(name: str, *reads: Path, sandbox: Sandbox = ALL) -> Completed:
    """ffprobe told to open *name*, with none of the options that would keep it from doing so."""
    shown = ("-show_entries", "stream=codec_name", "-of", "csv=p=0")
    return await sandbox.run([tool_name("ffprobe"), "-v", "error", *shown, name], reads=reads)


@pytest.mark.parametrize("scheme", ["http", "tcp", "udp", "unix", "rtp", "rtmp", "https"])
async def test_ffmpeg_itself_connects_to_nobody(tmp_path: Path, scheme: str) -> None:
    with listeners(tmp_path) as (tcp, udp, unix):
        port = udp if scheme in {"udp", "rtp"} else tcp
        name = f"unix:{unix}" if scheme == "unix" else f"{scheme}://127.0.0.1:{port}"
        completed = await probed(name)
        assert not completed.succeeded
        assert "Operation not permitted" in completed.stderr or scheme == "https"
        assert not completed.stdout
    await expect_good_run()


async def test_ffmpeg_itself_connects_where_nothing_confines_it() -> None:
    """So the test before is one that can fail."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, came = server.getsockname()[1], []

        def hang_up() -> None:
            with server.accept()[0]:
                came.append(port)

        thread = threading.Thread(target=hang_up)
        thread.start()
        await probed(f"http://127.0.0.1:{port}/x", sandbox=alone())
        await asyncio.to_thread(thread.join)
    assert came == [port]


async def test_ffmpeg_itself_writes_no_file(tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    tone = ("-f", "lavfi", "-i", "sine=d=0.1")
    completed = await ALL.run([tool_name("ffmpeg"), "-nostdin", "-v", "error", *tone, str(out)])
    assert not completed.succeeded
    assert not out.exists()


async def test_an_unreadable_medium_is_our_failure(tmp_path: Path) -> None:
    """A verdict about it would be for ever."""
    with pytest.raises(ToolCrashedError, match="No such file"):
        await probed("file:/x", tmp_path / "gone")


async def test_all_of_it_is_found_out_at_the_start() -> None:
    layers = await layers_of(ALL)
    assert layers.active == frozenset(Layer)
    assert layers.lacking() is None


@pytest.mark.parametrize("layer", sorted(set(Layer) - {Layer.LIMITS}))
async def test_a_layer_that_is_missing_is_named(layer: Layer) -> None:
    layers = await layers_of(Sandbox(layers=frozenset(Layer) - {layer}))
    assert layers.missing == {layer: "switched off"}
    assert (layers.lacking() is not None) is (layer in REQUIRED)


async def test_what_is_required_and_missing_stops_the_start() -> None:
    lacking = Sandbox(layers=frozenset(Layer) - {Layer.LANDLOCK})
    with pytest.raises(SettingsError, match=r"required, but .* landlock \(switched off\)"):
        await _layers(lacking, Settings(sandbox="required"))
    assert (await _layers(lacking, Settings())).missing
    assert not (await _layers(ALL, Settings(sandbox="required"))).missing


async def test_the_layers_are_shown_where_decoding_is(dsn: str, tmp_path: Path) -> None:
    async with running_api(settings_for(dsn, tmp_path)) as api:
        nothing = (await (await api.get("/readyz")).json())["checks"]["sandbox"]
        assert (nothing["status"], nothing["output"]) == ("pass", "this process decodes nothing")
        with capture_logs() as logs:
            async with open_worker(api.base, frozenset({Work.DERIVE})):
                shown = (await (await api.get("/readyz")).json())["checks"]["sandbox"]
        text = await (await api.get("/metrics")).text()
    assert shown["status"] == "pass"
    assert shown["layers"] == dict.fromkeys(sorted(Layer), "active")
    assert 'greenroom_sandbox_layer{layer="seccomp"} 1.0' in text
    (told,) = [log for log in logs if log["event"] == "sandbox_active"]
    assert (told["layers"], told["missing"]) == (sorted(Layer), {})


async def test_a_missing_layer_warns_and_stops_no_traffic(dsn: str, tmp_path: Path) -> None:
    settings = replace(settings_for(dsn, tmp_path), sandbox="off")
    async with (
        running_api(settings) as api,
        open_worker(api.base, frozenset({Work.DERIVE})),
    ):
        response = await api.get("/readyz")
        body = await response.json()
        text = await (await api.get("/metrics")).text()
    assert (response.status, body["status"]) == (200, "pass")
    assert body["checks"]["sandbox"]["status"] == "warn"
    assert body["checks"]["sandbox"]["layers"]["seccomp"] == "switched off"
    assert 'greenroom_sandbox_layer{layer="seccomp"} 0.0' in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_is_confined_as_well(tmp_path: Path) -> None:
    """In a user namespace, whose threads are counted: a bomb of them does not go off either. And
    without one, as in a container whose own filter forbids unshare(2): the rest holds.

    The system's own Python, since this one may live where only root can read.
    """
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no Python that an ordinary user can start")
    settings = f"address_space_bytes={2 << 30} cpu_s=20 file_bytes=0 open_files=64".split()
    confine, trial = tmp_path / "confine.py", tmp_path / "trial.py"
    confine.write_bytes(CONFINE.read_bytes())
    trial.write_bytes(TRIAL.read_bytes())
    program = (filter_for(os.uname().machine) or b"").hex()
    number = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
    steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    no_unshare = b"".join(struct.pack("=HBBI", *s) for s in (*steps, (RETURN, 0, 0, ALLOW))).hex()
    starter = f"""
import ctypes, os, struct, subprocess, sys
os.setgroups([]); os.setgid({ORDINARY_USER}); os.setuid({ORDINARY_USER})
python = "/usr/bin/python3"
layers = ["namespaces=try", "landlock=must", "seccomp=must", "explain=1"]
more = ["library=" + {str(tmp_path)!r}, "filter=" + {program!r}]
command = [python, "-I", "-S", {str(confine)!r}, f"parent={{os.getpid()}}"]
command += [*{settings!r}, *layers, *more]
bomb = '''
import _thread, time
made = 0
try:
    while made < 2000:
        _thread.start_new_thread(time.sleep, (60,)); made += 1
except RuntimeError:
    pass
print(made, flush=True)
import os; os._exit(0)
'''
small = "import threading; threading.stack_size(65536)\\n"
for tool in ([{str(trial)!r}, str(4 << 30)], ["-c", small + bomb]):
    subprocess.run([*command, "--", python, "-I", "-S", *tool], check=True)
held = ctypes.create_string_buffer(bytes.fromhex({no_unshare!r}))
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("HxxxxxxP", 4, ctypes.addressof(held)), 0, 0) == 0
subprocess.run([*command, "--", python, "-I", "-S", {str(trial)!r}, str(4 << 30)], check=True)
"""
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path.name.startswith(("pytest-", "popen-", tmp_path.name)):
            path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", starter], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, threads, contained = done.stdout.splitlines()
    ours = str(Path("/proc/self/ns/net").readlink())
    for tried in (found, contained):
        assert '"read_file": 13' in tried
        assert '"memory": 12' in tried
        assert '"udp": 1' in tried
        assert '"fork": 1' in tried
    assert ours not in found
    assert 100 < int(threads) < 600
    assert ours in contained
    assert done.stderr == "confine: without namespaces: Operation not permitted\n"


async def test_a_tool_cannot_outlive_its_worker_by_its_own_choice() -> None:
    """It dies of its parent's death, and that it cannot take back."""
    body = "import ctypes\nassert ctypes.CDLL(None).prctl({option}, 0, 0, 0, 0) == -1"
    assert await answer(body.format(option=1)) == SUCCESS  # PR_SET_PDEATHSIG
    told = (
        "import ctypes\nsignal = ctypes.c_int()\nctypes.CDLL(None).prctl(2, ctypes.byref(signal))"
    )
    for layers in (frozenset[Layer](), frozenset({Layer.NAMESPACES, Layer.LANDLOCK})):
        said = f"{told}\nassert signal.value == 9"
        assert await answer(said, Sandbox(layers=layers)) == SUCCESS
