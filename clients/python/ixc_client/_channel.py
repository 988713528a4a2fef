"""How a connection is made: addresses, certificates, keepalive, headers.

Keepalive pings keep proxies and NAT tables from forgetting a connection whose stream is waiting
for its first token; the server of this contract permits them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from ixc_client._errors import UsageError
from ixc_client._settings import Tls

OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # One channel per client, one connection per channel: clients do not share hidden state.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that restarts is found again within a second, not after grpc's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.root_certificates),
        private_key=_pem(tls.private_key),
        certificate_chain=_pem(tls.certificate),
    )


def headers_as_metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Headers as gRPC wants them; names are lower case on the wire."""
    for name in headers:
        if name != name.lower():
            raise UsageError(f"header names are lower case on the wire: {name.lower()!r}")
    return tuple(headers.items())


def metadata_of(headers: tuple[tuple[str, str], ...], session: str) -> tuple[tuple[str, str], ...]:
    """Headers of one call. A mesh keeps a session's calls together by `x-session-id`."""
    if not session:
        return headers
    return (*headers, ("x-session-id", session))


def _pem(path: Path | str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the certificate file {path}: {error.strerror}") from error
