"""The real S3 server of the tests: nothing of it outlives them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.servers.ceph import CephError, ceph, missing

pytestmark = pytest.mark.s3
ROOT = Path(__file__).parents[2]
HELD = """
import sys, time
from pathlib import Path
from tests.servers.ceph import ceph
with ceph(Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def programs() -> None:
    if absent := missing():
        pytest.skip(f"{', '.join(absent)} not installed")


def daemons_of(folder: Path) -> list[psutil.Process]:
    """By their environment: it names the folder's configuration."""
    configuration = str(folder / "ceph.conf")
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CEPH_CONF") == configuration:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def test_nothing_is_left_of_a_server_that_does_not_start(tmp_path: Path) -> None:
    folder = tmp_path / "ceph"
    with pytest.raises(CephError, match="ceph-osd"), ceph(folder, disk_bytes=1 << 20):
        pass
    assert daemons_of(folder) == []
    assert not folder.exists()


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    folder = tmp_path / "ceph"
    argv = [sys.executable, "-c", HELD, str(folder)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert len(daemons_of(folder)) == 3
        os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while daemons_of(folder) and time.monotonic() < until:
        time.sleep(0.05)
    assert daemons_of(folder) == []
