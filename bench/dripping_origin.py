"""An origin in a process of its own that sends well, drips, or never ends.

    python -m bench.dripping_origin

Prints its port. `/good` is 1 MB; `/drip` a byte a second; `/flood/N` N bytes of no announced
length; `/liar/N` the same, announced as 1 MB.
"""

import asyncio
import contextlib

GOOD_BYTES = 1 << 20
_CHUNK = b"\0" * (1 << 18)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n"
_TOLD = b"Content-Length: %d\r\n" % GOOD_BYTES


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # whoever asked hangs up when it has enough
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        request = await reader.readuntil(b"\r\n\r\n")
        _, how, size = (*request.split()[1].decode().split("/"), "0")[:3]
        writer.write(_HEAD + (_TOLD if how in {"good", "liar"} else b"") + b"\r\n")
        if how == "drip":
            await drip(writer)
        await send(writer, GOOD_BYTES if how == "good" else int(size))
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"\0")
        await writer.drain()
        await asyncio.sleep(1)


async def send(writer: asyncio.StreamWriter, size_bytes: int) -> None:
    while size_bytes > 0:
        writer.write(_CHUNK[:size_bytes])
        await writer.drain()
        size_bytes -= len(_CHUNK)


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
