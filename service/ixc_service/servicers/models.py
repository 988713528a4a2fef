# ruff: noqa: N802 - the contract names these methods
"""ModelService: what is served or could be, within which bounds, and how busy."""

from ixc.v1 import model_pb2
from ixc.v1 import model_service_pb2 as pb
from ixc.v1.model_service_pb2_grpc import ModelServiceServicer
from ixc_service.catalogue import Catalogue
from ixc_service.generations import Generations
from ixc_service.identifiers import model_name
from ixc_service.jobs import Desk
from ixc_service.paging import decode_token, encode_token, page_size
from ixc_service.streams import Context
from ixc_service.translate import resources
from ixc_service.validate.models import check_list_models, check_model_name


class ModelServicer(ModelServiceServicer):
    """`server` is what GetServerInfo says: but for the default model it does not change."""

    def __init__(
        self,
        catalogue: Catalogue,
        generations: Generations,
        desk: Desk,
        server: model_pb2.ServerInfo,
    ) -> None:
        self._catalogue = catalogue
        self._generations = generations
        self._desk = desk
        self._server = server

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        check_model_name(request.name)
        return pb.GetModelResponse(model=await self._catalogue.get(request.name))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        check_list_models(request)
        identity = ("models", tuple(sorted(request.states)))
        after = decode_token(request.page_token, str, *identity) or ""
        size = page_size(request.page_size, self._desk.limits.max_page_size)
        found = [
            model
            for model in await self._catalogue.all()
            if model.name > after and (not request.states or model.state in request.states)
        ]
        page, more = found[:size], len(found) > size
        return pb.ListModelsResponse(
            models=page, next_page_token=encode_token(page[-1].name, *identity) if more else ""
        )

    async def GetServerInfo(
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        server = model_pb2.ServerInfo()
        server.CopyFrom(self._server)
        server.default_model = model_name(self._desk.models.default.id)
        return pb.GetServerInfoResponse(server=server)

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        load = resources.load_message(
            [served.engine.load for served in self._desk.models.served],
            state=self._state(),
            num_detached=self._generations.num_detached,
            num_sessions=self._desk.store.num_held,
        )
        return pb.GetLoadResponse(load=load)

    def _state(self) -> model_pb2.ServerState.ValueType:
        if self._generations.drain_deadline is not None:
            return model_pb2.SERVER_STATE_DRAINING
        if not self._desk.models.default.engine.is_alive:
            return model_pb2.SERVER_STATE_ENGINE_DOWN
        return model_pb2.SERVER_STATE_SERVING
