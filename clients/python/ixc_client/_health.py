"""grpc.health.v1 in a few bytes: whether a server is ready.

The standard messages are one string and one enum. Written by hand, they spare a plain install
the grpcio-health-checking package.
"""

from enum import Enum

CHECK = "/grpc.health.v1.Health/Check"


class Health(Enum):
    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


def encode_request(service: str) -> bytes:
    """HealthCheckRequest{service = 1}."""
    name = service.encode()
    assert len(name) < 128, "a length of one byte"
    return bytes((0x0A, len(name))) + name if name else b""


def decode_response(data: bytes) -> Health:
    """HealthCheckResponse{status = 1}; proto3 leaves a zero out."""
    if len(data) >= 2 and data[0] == 0x08 and data[1] < len(Health):
        return Health(data[1])
    return Health.UNKNOWN
