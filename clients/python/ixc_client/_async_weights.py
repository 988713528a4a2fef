"""Models made and served, and long work followed, the asyncio way.

The blocking twin is `_weights`: same names, same meaning.
"""

from collections.abc import AsyncIterator, Sequence
from functools import partial

from ixc.v1 import operation_service_pb2, weights_service_pb2
from ixc_client import _methods as methods
from ixc_client import _operation_replies as replies
from ixc_client import _operation_requests as requests
from ixc_client import _resource_replies as resource_replies
from ixc_client._async_calls import AsyncCalls
from ixc_client._async_operation_stream import AsyncOperationStream
from ixc_client._async_uploader import AsyncUploader
from ixc_client._enclosures import Enclosures
from ixc_client._operation_state import OperationState
from ixc_client._operations import (
    LoadModelResult,
    MergeLoraResult,
    Operation,
    OperationKind,
    OperationResult,
    QuantizeResult,
    Rounding,
    SampleLike,
)
from ixc_client._operations import OperationState as State
from ixc_client._resources import ModelInfo

# A stop is asked for and then waited for; an adapter is read from disk first.
_SLOW_SECONDS = 60.0


class AsyncWeights:
    """`AsyncClient.weights`: for whoever runs the server. Names are ids in roots, never paths."""

    def __init__(self, calls: AsyncCalls, uploader: AsyncUploader) -> None:
        self._calls = calls
        self._uploader = uploader

    def merge_lora(
        self,
        model: str,
        output: str,
        *,
        task: str = "",
        adapter: str = "",
        dtype: str = "",
        overwrite: bool = False,
        validate_only: bool = False,
        load_when_done: bool = False,
        max_relative_difference: float | None = None,
        min_top1_agreement: float | None = None,
    ) -> AsyncOperationStream[MergeLoraResult]:
        """A new model `output` with a task of `model`, or a user's adapter, in its weights.

        It appears whole and verified, or not at all. Nothing is sent until the stream is read.
        """
        request = requests.merge_lora(
            model,
            output,
            task=task,
            adapter=adapter,
            dtype=dtype,
            overwrite=overwrite,
            validate_only=validate_only,
            load_when_done=load_when_done,
            max_relative_difference=max_relative_difference,
            min_top1_agreement=min_top1_agreement,
        )
        state = OperationState((methods.MERGE_LORA, request), retries=self._calls.retries)
        return AsyncOperationStream(self._calls, state)

    def quantize(
        self,
        model: str,
        output: str,
        *,
        rounding: Rounding | str = Rounding.AWQ,
        group_size: int | None = None,
        samples: Sequence[SampleLike] = (),
        max_sample_tokens: int | None = None,
        dtype: str = "",
        overwrite: bool = False,
        validate_only: bool = False,
        load_when_done: bool = False,
        max_perplexity_ratio: float | None = None,
        max_mean_kl: float | None = None,
        min_top1_agreement: float | None = None,
    ) -> AsyncOperationStream[QuantizeResult]:
        """A new model `output`: `model` with weights of 4 bits.

        `samples` are what it is shown meanwhile, texts or `Sample`s; without any, a built-in set.
        Nothing is sent until the stream is read.
        """
        enclosures = Enclosures()
        request = requests.quantize(
            model,
            output,
            rounding=rounding,
            group_size=group_size,
            samples=samples,
            max_sample_tokens=max_sample_tokens,
            dtype=dtype,
            overwrite=overwrite,
            validate_only=validate_only,
            load_when_done=load_when_done,
            max_perplexity_ratio=max_perplexity_ratio,
            max_mean_kl=max_mean_kl,
            min_top1_agreement=min_top1_agreement,
            enclosures=enclosures,
        )
        state = OperationState((methods.QUANTIZE, request), retries=self._calls.retries)
        return AsyncOperationStream(self._calls, state, partial(self._uploader.enclose, enclosures))

    def load(
        self, model: str, *, make_default: bool = False
    ) -> AsyncOperationStream[LoadModelResult]:
        """Serves a model of the models root, beside the others or as the default."""
        request = requests.load_model(model, make_default=make_default)
        state = OperationState((methods.LOAD_MODEL, request), retries=self._calls.retries)
        return AsyncOperationStream(self._calls, state)

    async def unload(self, model: str) -> ModelInfo:
        """Takes nothing new for it from now on; what runs finishes."""
        name = requests.resource_name("models", model)
        request = weights_service_pb2.UnloadModelRequest(name=name)
        reply = await self._calls.unary(methods.UNLOAD_MODEL, request)
        return resource_replies.model(reply.model)

    async def load_adapter(self, adapter: str, *, model: str = "", name: str = "") -> ModelInfo:
        """Gives a loaded model an adapter of the adapters root; `name`: how requests choose it."""
        request = weights_service_pb2.LoadAdapterRequest(
            model=requests.resource_name("models", model),
            adapter=requests.resource_name("adapters", adapter),
            name=name,
        )
        reply = await self._calls.unary(methods.LOAD_ADAPTER, request, seconds=_SLOW_SECONDS)
        return resource_replies.model(reply.model)

    async def unload_adapter(
        self, name: str, *, model: str = "", allow_missing: bool = True
    ) -> ModelInfo:
        request = weights_service_pb2.UnloadAdapterRequest(
            model=requests.resource_name("models", model), name=name, allow_missing=allow_missing
        )
        reply = await self._calls.unary(methods.UNLOAD_ADAPTER, request)
        return resource_replies.model(reply.model)


class AsyncOperations:
    """`AsyncClient.operations`: long work, wherever it was begun."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    def watch(
        self, operation: str, *, after_sequence: int = 0
    ) -> AsyncOperationStream[OperationResult]:
        """Follows an operation, running or done, from a point of its log."""
        state = OperationState(
            None,
            retries=self._calls.retries,
            name=requests.resource_name("operations", operation),
            after_sequence=after_sequence,
        )
        return AsyncOperationStream(self._calls, state)

    async def get(self, operation: str) -> Operation:
        name = requests.resource_name("operations", operation)
        request = operation_service_pb2.GetOperationRequest(name=name)
        reply = await self._calls.unary(methods.GET_OPERATION, request)
        return replies.operation(reply.operation)

    async def list(
        self,
        *,
        kinds: Sequence[OperationKind | str] = (),
        states: Sequence[State | str] = (),
    ) -> AsyncIterator[Operation]:
        """Newest first: those that wait, run, or are kept."""
        request = operation_service_pb2.ListOperationsRequest(
            kinds=requests.kinds(kinds), states=requests.states(states)
        )
        while True:
            page = await self._calls.unary(methods.LIST_OPERATIONS, request)
            for message in page.operations:
                yield replies.operation(message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def cancel(self, operation: str) -> Operation:
        """Stops an operation, and returns it once it is done."""
        name = requests.resource_name("operations", operation)
        request = operation_service_pb2.CancelOperationRequest(name=name)
        reply = await self._calls.unary(methods.CANCEL_OPERATION, request, seconds=_SLOW_SECONDS)
        return replies.operation(reply.operation)

    async def delete(self, operation: str, *, allow_missing: bool = True) -> None:
        """Forgets an operation that is done; what it published stays."""
        name = requests.resource_name("operations", operation)
        request = operation_service_pb2.DeleteOperationRequest(
            name=name, allow_missing=allow_missing
        )
        await self._calls.unary(methods.DELETE_OPERATION, request)
