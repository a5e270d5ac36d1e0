"""asyncpg's classes are generic to the type checker only, so they are named here once."""

from typing import TYPE_CHECKING, TypeAlias

import asyncpg

if TYPE_CHECKING:
    import asyncpg.pool

Conn: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
)
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Row: TypeAlias = "asyncpg.Record"

# What reaching no database raises, and nothing else: a reason to try again.
DATABASE_UNREACHABLE = (
    ConnectionRefusedError,
    FileNotFoundError,  # its socket
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# What a database that is away, or went away under us, raises. A cut connection can surface as
# InternalClientError, which is no PostgresError.
DATABASE_AWAY = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
