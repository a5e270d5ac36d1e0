"""moto's S3 server, in a thread: it is quick, and keeps to the protocol's conditions, but it looks
at no signature, no expiry and no form's policy.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

from tests.servers.s3 import S3Server


@contextmanager
def moto() -> Iterator[S3Server]:
    """A server on loopback, until the block ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(
            name="moto",
            endpoint=f"http://{host}:{port}",
            access_key_id="moto",
            secret_access_key="moto",  # noqa: S106 - it looks at none
        )
    finally:
        server.stop()
