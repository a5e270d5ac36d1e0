"""The feed has one order: commit order. A reader that remembers its cursor misses nothing."""

import asyncio
from uuid import UUID

from service.db import events
from service.db.avatars import Avatar
from service.db.events import Event
from service.db.types import Conn, Pool
from service.domain import EventType
from service.events.data import AvatarReady, avatar_ref
from service.events.feed import FeedWaker
from service.events.outbox import unit_of_work
from service.ingest.settle import avatar_subject
from tests.rows import NOW, add_avatar


async def announce(conn: Conn, avatar: Avatar) -> None:
    async with unit_of_work(conn, now=NOW) as work:
        said = AvatarReady(avatar=avatar_ref(avatar.id))
        work.announce(EventType.AVATAR_READY, avatar_subject(avatar), said)


async def read(pool: Pool, after: int) -> list[Event]:
    async with pool.acquire() as conn:
        return await events.after(conn, after, organisation_id=None, limit=100)


async def subjects_from(pool: Pool, position: int, wanted: int) -> list[UUID]:
    """Follow the feed by its cursor, as a consumer does, until *wanted* events were seen."""
    seen: list[UUID] = []
    async with asyncio.timeout(3):
        while len(seen) < wanted:
            for event in await read(pool, position):
                position = event.position
                seen.append(event.id)
            await asyncio.sleep(0.01)
    return seen


async def test_a_reader_misses_nothing_of_transactions_that_commit_in_crossed_order(
    pool: Pool,
) -> None:
    """The first writer has numbered its event and is held open; the second would overtake it."""
    first, second = await add_avatar(pool), await add_avatar(pool)
    start = (await read(pool, 0))[-1].position
    reading = asyncio.create_task(subjects_from(pool, start, 2))
    async with pool.acquire() as slow, pool.acquire() as fast:
        transaction = slow.transaction()
        await transaction.start()
        await announce(slow, first)  # a savepoint inside: position taken, nothing committed
        overtaking = asyncio.create_task(announce(fast, second))
        await asyncio.sleep(0.3)  # long enough for the reader to see it, were it not held back
        await transaction.commit()
        await overtaking
    assert len(await reading) == 2


async def test_many_writers_leave_no_gap_in_any_subject(pool: Pool) -> None:
    avatars = [await add_avatar(pool) for _ in range(4)]

    async def write(avatar: Avatar) -> None:
        async with pool.acquire() as conn:
            await announce(conn, avatar)

    await asyncio.gather(*(write(avatar) for avatar in avatars for _ in range(10)))
    sequences: dict[str, list[int]] = {}
    for event in await read(pool, 0):
        sequences.setdefault(event.subject, []).append(event.sequence)
    assert all(seen == list(range(1, 12)) for seen in sequences.values())


async def test_a_commit_wakes_whoever_waits(pool: Pool, dsn: str) -> None:
    avatar = await add_avatar(pool)
    async with FeedWaker(dsn) as waker, pool.acquire() as conn:
        async with asyncio.timeout(2):
            await waker.ticket().wait()  # the listener's own first wake-up
        ticket = waker.ticket()
        await announce(conn, avatar)
        async with asyncio.timeout(2):
            await ticket.wait()


async def test_waiters_are_woken_when_the_listener_comes_back(pool: Pool, dsn: str) -> None:
    """A notification sent while the connection was away is lost; its readers must look again."""
    async with FeedWaker(dsn) as waker:
        await waker.ticket().wait()
        ticket = waker.ticket()
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        )
        async with asyncio.timeout(5):
            await ticket.wait()
