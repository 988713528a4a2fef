"""While the server drains, what would begin new work or change a session is refused at the door."""

from typing import Any

from ixc_runtime.errors import ServerDraining
from ixc_service.interceptors.wrapping import Behavior

# Everything else reads, watches or stops, and is answered to the end.
_REFUSED = {
    "/ixc.v1.GenerationService/Generate",
    "/ixc.v1.ChatService/Chat",
    "/ixc.v1.SessionService/CreateSession",
    "/ixc.v1.SessionService/UpdateSession",
    "/ixc.v1.SessionService/ForkSession",
    "/ixc.v1.SessionService/RewindSession",
    "/ixc.v1.SessionService/DeleteSession",
    "/ixc.v1.MediaService/UploadMedia",
    "/ixc.v1.MediaService/DeleteMedia",
    "/ixc.v1.WeightsService/MergeLora",
    "/ixc.v1.WeightsService/Quantize",
    "/ixc.v1.WeightsService/LoadModel",
    "/ixc.v1.WeightsService/UnloadModel",
    "/ixc.v1.WeightsService/LoadAdapter",
    "/ixc.v1.WeightsService/UnloadAdapter",
    "/ixc.v1.OperationService/DeleteOperation",
}


class DrainGate:
    def __init__(self) -> None:
        self.is_closed = False

    def around(self, method: str, behavior: Behavior) -> Behavior:
        if method not in _REFUSED:
            return behavior

        async def wrapped(request: Any, context: Any) -> Any:
            if self.is_closed:
                raise ServerDraining("the server is about to stop")
            return await behavior(request, context)

        return wrapped
