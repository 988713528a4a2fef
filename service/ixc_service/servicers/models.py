# ruff: noqa: N802 - the contract names these methods
"""ModelService: what is served, within which bounds, and how busy. Answered from memory."""

from ixc.v1 import model_pb2
from ixc.v1 import model_service_pb2 as pb
from ixc.v1.model_service_pb2_grpc import ModelServiceServicer
from ixc_service.engine_port import EnginePort
from ixc_service.generations import Generations
from ixc_service.jobs import Desk
from ixc_service.paging import decode_token
from ixc_service.streams import Context
from ixc_service.translate import resources
from ixc_service.validate.requests import check_model_name


class ModelServicer(ModelServiceServicer):
    """`server` is what GetServerInfo says: it does not change while the server runs."""

    def __init__(
        self,
        engine: EnginePort,
        generations: Generations,
        desk: Desk,
        server: model_pb2.ServerInfo,
    ) -> None:
        self._engine = engine
        self._generations = generations
        self._desk = desk
        self._server = server
        self._model = resources.model_message(desk.model)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        check_model_name(request.name, self._desk.model)
        return pb.GetModelResponse(model=self._model)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        # One model is one page: no token is ever given out, and none is accepted.
        decode_token(request.page_token, str, "models")
        return pb.ListModelsResponse(models=[self._model])

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        return pb.GetServerInfoResponse(server=self._server)

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        load = resources.load_message(
            self._engine.load,
            state=self._state(),
            num_detached=self._generations.num_detached,
            num_sessions=self._desk.store.num_held,
        )
        return pb.GetLoadResponse(load=load)

    def _state(self) -> model_pb2.ServerState.ValueType:
        if self._generations.drain_deadline is not None:
            return model_pb2.SERVER_STATE_DRAINING
        if not self._engine.is_alive:
            return model_pb2.SERVER_STATE_ENGINE_DOWN
        return model_pb2.SERVER_STATE_SERVING
