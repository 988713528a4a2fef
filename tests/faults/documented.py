"""Whether a call's end is one that the contract lists for its RPC."""

from collections.abc import Mapping
from functools import cache

import grpc

from tests.contract import described
from tests.contract.test_contract_errors import stated
from tests.fakes.running_server import error_info

# What the gRPC library says by itself, to a message or to metadata that is too large.
_BY_THE_LIBRARY = {grpc.StatusCode.RESOURCE_EXHAUSTED}
# What grpc.aio's client says when the server has answered before the last message was written.
_WROTE_TOO_LATE = "Internal error from Core"

_WATCHES = {
    "GenerationService.WatchGeneration": ("GenerationService.Generate", "ChatService.Chat"),
    "OperationService.WatchOperation": (
        "WeightsService.MergeLora",
        "WeightsService.Quantize",
        "WeightsService.LoadModel",
    ),
}


@cache
def documented() -> Mapping[str, set[tuple[str, str]]]:
    """Each RPC's (code, reason) pairs, as its comment states them; names as "Service.Method".

    A watch may end as what it watches.
    """
    pairs = {
        method.name: {(code, reason) for code, reasons in stated(method) for reason in reasons}
        for method in described.methods()
    }
    for watch, watched in _WATCHES.items():
        pairs[watch] = pairs[watch].union(*(pairs[name] for name in watched))
    return pairs


def judged(method: str, error: grpc.aio.AioRpcError) -> tuple[str, bool]:
    """The end as "CODE/REASON", and whether it may be: listed, and no fault of ours."""
    code = error.code()
    details = dict(error.trailing_metadata() or ())
    is_silent = "grpc-status-details-bin" not in details
    if is_silent and (code in _BY_THE_LIBRARY or error.details() == _WROTE_TOO_LATE):
        return f"{code.name} by the library", True
    try:
        reason = error_info(error).reason
    except AssertionError:
        reason = "(none)"
    is_listed = (code.name, reason) in documented()[method]
    return f"{code.name}/{reason}", is_listed and code is not grpc.StatusCode.INTERNAL
