"""What `python -m bench hostile` measures holds here too, with fewer samples."""

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.dripping_origin import GOOD_BYTES
from bench.hostile import (
    CAP_BYTES,
    ENDLESS_BYTES,
    Beside,
    Stream,
    Streams,
    dripping,
    fetching,
    good_ms,
    origin,
    ours,
    report,
    stream,
)


@pytest.fixture
def port() -> Iterator[int]:
    with origin() as opened:
        yield opened


async def test_fifty_drippers_do_not_delay_a_good_fetch(port: int) -> None:
    async with fetching(port) as fetch:
        alone = await good_ms(fetch, port, 20)
        async with dripping(fetch, port, 50):
            beside = await good_ms(fetch, port, 20)
    assert len(alone) == len(beside) == 20
    assert statistics.median(beside) - statistics.median(alone) < 100


async def test_a_stream_of_ten_gigabytes_stops_at_the_cap_with_flat_memory(
    port: int, tmp_path: Path
) -> None:
    async with ours(port) as fetcher:
        how = Streams(fetcher=fetcher, folder=tmp_path)
        base = f"http://127.0.0.1:{port}"
        endless = await stream(lambda tally: how.fetched(f"{base}/flood/{ENDLESS_BYTES}", tally))
        liar = await stream(lambda tally: how.fetched(f"{base}/liar/{ENDLESS_BYTES}", tally))
    assert endless.ended == "`source_too_large`"
    assert CAP_BYTES - (4 << 20) < endless.size_bytes <= CAP_BYTES
    assert (liar.ended, liar.size_bytes) == ("whole", GOOD_BYTES)
    assert max(endless.growth_mib, liar.growth_mib) < 32


def test_the_report_says_where_a_good_fetch_did_not_end() -> None:
    by_client = {
        "greenroom": [Beside(drippers=200, times_ms=[8.0, 9.0, 30.0])],
        "aiohttp": [Beside(drippers=200, times_ms=[])],
    }
    one = Stream(size_bytes=500_000_000, ended="whole", growth_mib=3, cpu_s=1)
    lines = report(by_client, {"500 MB": one})
    assert "| 200 | 9.0 (30.0, n = 3) | none within 30 s |" in lines
    assert "| 500 MB | 500.0 | whole | 3.0 | 1.00 | 2.00 |" in lines
