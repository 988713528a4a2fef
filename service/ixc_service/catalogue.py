"""Every model there is to tell of: those that are served, and those that lie in the models root.

Folders are looked at when somebody asks, for they come and go without us. One whose files make no
model is not listed: nothing could be said of it, and loading it says what is wrong.
"""

import asyncio
import logging

from ixc.v1 import model_pb2
from ixc_runtime import look_at_model_folder
from ixc_runtime.errors import CheckpointError, DiskFault
from ixc_runtime.models_root import ModelsRoot, StoredModel
from ixc_service.errors import ModelNotFound
from ixc_service.identifiers import model_id_of
from ixc_service.log_events import emit
from ixc_service.models import Models, ModelState
from ixc_service.translate.models import STATES, folder_message, served_message

_log = logging.getLogger(__name__)


class Catalogue:
    """`root` None: only what is served."""

    def __init__(self, models: Models, root: ModelsRoot | None) -> None:
        self._models = models
        self._root = root

    async def get(self, name: str) -> model_pb2.Model:
        """The model of this name, or the default for none. Raises ModelNotFound."""
        model_id = (model_id_of(name) or "") if name else self._models.default.id
        stored = await asyncio.to_thread(self._stored, model_id)
        message = await self._message(model_id, stored)
        if message is None:
            raise ModelNotFound(name[:128])
        return message

    async def all(self) -> list[model_pb2.Model]:
        """Ordered by name."""
        found = await asyncio.to_thread(self._all_stored)
        stored = {each.model_id: each for each in found}
        ids = {*stored, *(served.id for served in self._models.served)}
        messages = [await self._message(each, stored.get(each)) for each in sorted(ids)]
        return [message for message in messages if message is not None]

    async def _message(self, model_id: str, stored: StoredModel | None) -> model_pb2.Model | None:
        state = self._models.state(model_id)
        served = self._models.look_up(model_id)
        if served is not None:
            loaded = ModelState.UNLOADING if served.is_leaving else ModelState.LOADED
            return served_message(served.info, loaded, stored)
        if stored is None:
            return None
        return await asyncio.to_thread(self._of_folder, stored, state)

    def in_state(self, model: model_pb2.Model, state: ModelState | None) -> model_pb2.Model:
        """As it is now that its state is another."""
        changed = model_pb2.Model()
        changed.CopyFrom(model)
        changed.state = STATES[state]
        return changed

    # ---- on threads of their own

    def _stored(self, model_id: str) -> StoredModel | None:
        if self._root is None:
            return None
        try:
            return self._root.model(model_id)
        except CheckpointError:
            return None
        except DiskFault as fault:
            _unreadable(fault)
            return None

    def _all_stored(self) -> list[StoredModel]:
        try:
            return self._root.models() if self._root else []
        except DiskFault as fault:
            _unreadable(fault)
            return []

    def _of_folder(self, stored: StoredModel, state: ModelState | None) -> model_pb2.Model | None:
        assert self._root is not None, "what is stored lies in it"
        try:
            folder = look_at_model_folder(self._root.folder(stored.model_id))
        except CheckpointError:
            return None
        return folder_message(folder, state, stored)


def _unreadable(fault: DiskFault) -> None:
    """What is served can be told of all the same."""
    emit(_log, "models_root_unreadable", level=logging.WARNING, message=fault.message)
