"""Where anything of somebody is still found: every column, every object, every file."""

import asyncio
from collections.abc import Collection, Iterable
from pathlib import Path

from service.db.types import Pool
from storage.store import AssetStore

_TABLES = """
    SELECT table_name FROM information_schema.tables
     WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
"""


async def rows_as_text(pool: Pool) -> dict[str, str]:
    """Every table as one text; bytes are in hex."""
    names = [row["table_name"] for row in await pool.fetch(_TABLES)]
    sql = "SELECT coalesce(string_agg(to_jsonb(t)::text, E'\\n'), '') FROM {} t"
    return {name: await pool.fetchval(sql.format(name)) for name in names}


async def traces(
    pool: Pool, store: AssetStore, folders: Iterable[Path], marks: Collection[bytes]
) -> list[str]:
    """The places in which one of *marks* stands."""
    tables = await rows_as_text(pool)
    found = [
        f"table {name}"
        for name, text in tables.items()
        if any(_spelled(mark) in text or mark.hex() in text for mark in marks)
    ]
    async for stat in store.list():
        data = b"".join([chunk async for chunk in store.open(stat.key)])
        if any(mark in data for mark in marks):
            found.append(f"object {stat.key}")
    return found + await asyncio.to_thread(_files_with, list(folders), marks)


def _spelled(mark: bytes) -> str:
    """As text it would stand so; other bytes have no letters to be found by."""
    return mark.decode("ascii") if mark.isascii() else mark.hex()


def _files_with(folders: list[Path], marks: Collection[bytes]) -> list[str]:
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [
        f"file {file}"
        for file in files
        if any(mark in data for data in [file.read_bytes()] for mark in marks)
    ]
