# ruff: noqa: N802 - the contract names these methods
"""The quick part of WeightsService: models that cease to be served, adapters that come and go."""

from ixc.v1 import weights_service_pb2 as pb
from ixc.v1.weights_service_pb2_grpc import WeightsServiceServicer
from ixc_service.catalogue import Catalogue
from ixc_service.identifiers import model_id_of, model_name
from ixc_service.model_desk import ModelDesk
from ixc_service.streams import Context
from ixc_service.validate import models as checks


class ServedModelsServicer(WeightsServiceServicer):
    def __init__(self, desk: ModelDesk, catalogue: Catalogue) -> None:
        self._model_desk = desk
        self._catalogue = catalogue

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Context
    ) -> pb.UnloadModelResponse:
        checks.check_unload_model(request)
        # Looked at before: one from outside the models root leaves nothing behind to describe.
        model = await self._catalogue.get(request.name)
        state = await self._model_desk.unload(model_id_of(request.name) or "")
        return pb.UnloadModelResponse(model=self._catalogue.in_state(model, state))

    async def LoadAdapter(
        self, request: pb.LoadAdapterRequest, context: Context
    ) -> pb.LoadAdapterResponse:
        adapter_id = checks.check_load_adapter(request)
        served = await self._model_desk.load_adapter(
            request.model, adapter_id, request.name or adapter_id
        )
        return pb.LoadAdapterResponse(model=await self._catalogue.get(model_name(served.id)))

    async def UnloadAdapter(
        self, request: pb.UnloadAdapterRequest, context: Context
    ) -> pb.UnloadAdapterResponse:
        checks.check_unload_adapter(request)
        served = await self._model_desk.unload_adapter(
            request.model, request.name, allow_missing=request.allow_missing
        )
        return pb.UnloadAdapterResponse(model=await self._catalogue.get(model_name(served.id)))
