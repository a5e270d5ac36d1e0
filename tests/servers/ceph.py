"""A real S3 server: Ceph's object gateway, with one monitor and one disk, in a folder of its own.

with ceph(folder) as server:
    client = session.client("s3", endpoint_url=server.endpoint, ...)

Debian has it: ceph-base, ceph-mon, ceph-osd, radosgw. It takes about 8 s and 200 MB of memory to
start, listens on loopback alone, reads and writes nothing outside *folder*, and dies with us.
"""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import create_server

from service.db import leash
from tests.servers.s3 import S3Server

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
DISK_BYTES = 12 << 30  # of a sparse file
START_S = 60.0
_POLL_S = 0.05
_TAIL = 2000  # characters of each log, when it does not start

# One copy of everything on one disk. What is set apart from that shortens the waits of a cluster
# whose parts all start at once: its own defaults are for machines that come back after minutes.
_SETTINGS: Mapping[str, object] = {
    "public_addr": "127.0.0.1",
    "cluster_addr": "127.0.0.1",
    "ms_bind_msgr1": "false",
    "auth_cluster_required": "cephx",
    "auth_service_required": "cephx",
    "auth_client_required": "cephx",
    "admin_socket": "",
    "pid_file": "",
    "osd_pool_default_size": 1,
    "osd_pool_default_min_size": 1,
    "mon_allow_pool_size_one": "true",
    "osd_pool_default_pg_num": 1,
    "osd_pool_default_pg_autoscale_mode": "off",
    "osd_crush_chooseleaf_type": 0,
    "osd_memory_target": 939524096,  # the least that it takes
    "bluestore_fsck_on_mkfs": "false",
    "paxos_propose_interval": 0.05,
    "paxos_min_wait": 0.01,
    "objecter_tick_interval": 0.5,
    "rgw_run_sync_thread": "false",
    "rgw_dynamic_resharding": "false",
    "rgw_override_bucket_index_max_shards": 1,
    "rgw_crypt_require_ssl": "false",
    "rgw_gc_obj_min_wait": 0,
    "rgw_gc_processor_period": 5,
}


# Whom the monitor knows from its first start, and what each may do.
_CAPS: Mapping[str, Mapping[str, str]] = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
}
_AES = 1


class CephError(Exception):
    """Ceph did not start; the message ends with what it said last."""


def missing() -> list[str]:
    """The programs that are not installed here."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def ceph(folder: Path, *, disk_bytes: int = DISK_BYTES) -> Iterator[S3Server]:
    """A server with one user, until the block ends; raise CephError. *folder* is removed then.

    Enter it in a thread that outlives it: the kernel ends Ceph when the thread does.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as held:
        held.callback(shutil.rmtree, folder)
        cluster = _Cluster(folder=folder, disk_bytes=disk_bytes, held=held)
        yield cluster.start()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cluster:
    folder: Path
    disk_bytes: int
    held: ExitStack
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    give_up_at: float = field(default_factory=lambda: time.monotonic() + START_S)

    def start(self) -> S3Server:
        monitor_port, port = _free_port(), _free_port()
        self._configure(monitor_port, port)
        self._start_monitor(monitor_port)
        self._start_disk()
        server = self._make_user(port)
        self._keep_running("radosgw", "-n", "client.admin")
        self._wait_for(port)
        return server

    def _configure(self, monitor_port: int, port: int) -> None:
        for name in ("monitor", "disk", "gateway"):
            (self.folder / name).mkdir()
        lines = {
            **_SETTINGS,
            "fsid": self.id,
            "mon_host": f"[v2:127.0.0.1:{monitor_port}/0]",
            "keyring": self.folder / "keyring",
            "run_dir": self.folder,
            "crash_dir": self.folder,
            "log_file": f"{self.folder}/$name.log",
            "mon_data": self.folder / "monitor",
            "osd_data": self.folder / "disk",
            "rgw_data": self.folder / "gateway",
            "bluestore_block_size": self.disk_bytes,
            "rgw_frontends": f"beast endpoint=127.0.0.1:{port}",
        }
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        (self.folder / "ceph.conf").write_text(f"[global]\n{text}")
        (self.folder / "keyring").write_text("".join(map(_key_of, _CAPS)))

    def _start_monitor(self, port: int) -> None:
        where, keyring = str(self.folder / "monmap"), str(self.folder / "keyring")
        address = f"[v2:127.0.0.1:{port}/0]"
        self._run("monmaptool", "--create", "--fsid", self.id, "--addv", "a", address, where)
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", where, "--keyring", keyring)
        self._keep_running("ceph-mon", "-i", "a")

    def _start_disk(self) -> None:
        disk = str(uuid.uuid4())
        self._run("ceph", "osd", "new", disk, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._keep_running("ceph-osd", "-i", "0")

    def _make_user(self, port: int) -> S3Server:
        said = self._run("radosgw-admin", "user", "create", "--uid=greenroom", "--display-name=g")
        (key,) = json.loads(said)["keys"]
        return S3Server(
            name="ceph",
            endpoint=f"http://127.0.0.1:{port}",
            access_key_id=key["access_key"],
            secret_access_key=key["secret_key"],
            region="us-east-1",
        )

    def _run(self, *argv: str) -> str:
        """What the program printed."""
        left_s = max(1.0, self.give_up_at - time.monotonic())
        try:
            done = subprocess.run(
                argv,
                check=False,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=left_s,
            )
        except subprocess.TimeoutExpired as exc:
            raise CephError(f"{argv[0]} did not end in time{self._said()}") from exc
        if done.returncode:
            raise CephError(f"{' '.join(argv)}: {done.stderr[-_TAIL:]}{self._said()}")
        return done.stdout

    def _keep_running(self, name: str, *argv: str) -> None:
        """Start a daemon that dies with us, and is killed in the end: nobody needs its data."""
        leashed = (sys.executable, "-I", "-S", leash.__file__, str(os.getpid()))
        as_it_is = (str(int(signal.SIGKILL)), "-1", "-1")
        program = shutil.which(name)
        if program is None:
            raise CephError(f"{name} is not installed")
        with (self.folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                [*leashed, *as_it_is, program, *argv, "-f"],
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt from the terminal is for us alone
            )
        self.held.callback(process.wait)
        self.held.callback(process.kill)

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "CEPH_CONF": str(self.folder / "ceph.conf")}

    def _wait_for(self, port: int) -> None:
        while time.monotonic() < self.give_up_at:
            connection = HTTPConnection("127.0.0.1", port, timeout=1)
            with suppress(OSError, HTTPException), closing(connection):
                connection.request("GET", "/")
                if connection.getresponse().status == HTTPStatus.OK:
                    return
            time.sleep(_POLL_S)
        raise CephError(f"the gateway does not answer{self._said()}")

    def _said(self) -> str:
        """The end of every log."""
        logs = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        ends = ((path.name, path.read_text(errors="replace")[-_TAIL:]) for path in logs)
        return "".join(f"\n--- {name}\n{end}" for name, end in ends)


def _key_of(name: str) -> str:
    """A new key as a keyring has it: the kind, seconds and nanoseconds, the length, the secret."""
    secret = os.urandom(16)
    key = b64encode(struct.pack("<HIIH", _AES, int(time.time()), 0, len(secret)) + secret)
    caps = "".join(f'caps {of} = "{cap}"\n' for of, cap in _CAPS[name].items())
    return f"[{name}]\nkey = {key.decode()}\n{caps}"


def _free_port() -> int:
    with create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
