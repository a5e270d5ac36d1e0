"""What `make bench` counts and prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import store
from bench.__main__ import Ours, Peers, report
from bench.cpu import Spent, forget_peak, peak_mib
from bench.ours import Cost, decoding_s, kind_of
from tests.facts import VIDEO
from validators.derive.recipes import Recipe
from validators.facts import Kind
from validators.policy import STANDARD
from validators.rules import judge

SAMPLES = Path(__file__).parents[2] / "samples"
COST = Cost(
    path=Path("a.mp4"),
    kind=Kind.VIDEO,
    decoding_s=0.5,
    measuring=Spent(ours=0.1, tools=0.7, child=1.2),
    peak_mib=400,
    verdict=judge(VIDEO, STANDARD),
    recipes={Recipe.PREVIEW: 0.3},
)
OURS = Ours(start=Spent(ours=0, tools=0, child=2.5), idle_mib=300, files=[COST])


def test_every_part_and_the_ratio_stand_in_one_line() -> None:
    peers = Peers(files={"a.mp4": {"cpu_s": 7.0, "verdict": "rejected"}})
    lines = report(OURS, peers)
    (line,) = [each for each in lines if each.startswith("| `a.mp4` | 0.50")]
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert cells[1:5] == ["2.00", "0.70", "1.20", "0.10"]
    assert cells[5].startswith("4.0")
    assert cells[6:] == ["400", "accepted", "7.00", "rejected"]
    assert "| `a.mp4` | preview | 0.30 |" in lines


def test_a_peer_that_did_not_run_is_told() -> None:
    assert any("| not run |" in line for line in report(OURS, Peers()))


def test_work_of_a_child_that_ended_is_counted_as_a_tools() -> None:
    before = Spent.until_now()
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    spent = Spent.until_now() - before
    assert spent.tools >= 0.25
    assert spent.total == pytest.approx(spent.ours + spent.tools + spent.child)


def test_the_peak_of_a_process_can_be_taken_anew() -> None:
    ballast = bytearray(64 << 20)
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])
    full = peak_mib(os.getpid())
    del ballast
    forget_peak(os.getpid())
    assert peak_mib(os.getpid()) < full - 32


def test_plain_decoding_costs_something() -> None:
    path = SAMPLES / "voice.flac"
    assert kind_of(path) is Kind.AUDIO
    assert 0 < decoding_s(path) < 20


def test_every_way_into_a_bucket_stands_beside_the_peer() -> None:
    costs = {
        "greenroom": [store.Cost(mb_per_s=50, growth_mib=growth, cpu_s=9) for growth in (30, 40)],
        store.PEER: [store.Cost(mb_per_s=100, growth_mib=120, cpu_s=8)] * 2,
    }
    *_, ours, _ = store.report("ceph", 2000, costs)
    assert [cell.strip() for cell in ours.split("|")[2:3]] == ["50"]
    assert "| 0.50" in ours
    assert ours.endswith("| 40 | 9.0 | 4.5 |")
