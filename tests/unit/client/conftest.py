"""A fake server and a client that does not wait between tries."""

from collections.abc import Iterator

import pytest

import ixc_client
from ixc_client.testing import FakeServer

# Tries as often as users' clients do, but at once.
EAGER = ixc_client.Retries(attempts=4, first_delay=0, max_delay=1)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def ixc(server: FakeServer) -> Iterator[ixc_client.Client]:
    with server.client(retries=EAGER) as client:
        yield client
