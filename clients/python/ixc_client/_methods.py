"""The RPCs the client calls, one value each: path, message types, and whether it may be retried.

"May be retried" is the contract's word, not a guess: reads, and writes that carry a request id or
end in the same state when made twice. The streams say nothing of it here: how they are taken up
again is told in `_answer`.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from ixc.v1 import chat_service_pb2 as chat
from ixc.v1 import generation_service_pb2 as generation
from ixc.v1 import media_service_pb2 as media
from ixc.v1 import model_service_pb2 as model
from ixc.v1 import operation_service_pb2 as operation
from ixc.v1 import session_service_pb2 as session
from ixc.v1 import token_service_pb2 as token
from ixc.v1 import weights_service_pb2 as weights

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    path: str
    request: type[RequestT]
    response: type[ResponseT]
    retry_safe: bool = True


# A method and its request. Streams hold calls of several methods, hence untyped.
Call = tuple[Method[Any, Any], Any]


CHAT = Method("/ixc.v1.ChatService/Chat", chat.ChatRequest, chat.ChatResponse)

GENERATE = Method(
    "/ixc.v1.GenerationService/Generate", generation.GenerateRequest, generation.GenerateResponse
)
WATCH_GENERATION = Method(
    "/ixc.v1.GenerationService/WatchGeneration",
    generation.WatchGenerationRequest,
    generation.WatchGenerationResponse,
)
GET_GENERATION = Method(
    "/ixc.v1.GenerationService/GetGeneration",
    generation.GetGenerationRequest,
    generation.GetGenerationResponse,
)
LIST_GENERATIONS = Method(
    "/ixc.v1.GenerationService/ListGenerations",
    generation.ListGenerationsRequest,
    generation.ListGenerationsResponse,
)
CANCEL_GENERATION = Method(
    "/ixc.v1.GenerationService/CancelGeneration",
    generation.CancelGenerationRequest,
    generation.CancelGenerationResponse,
)

CREATE_SESSION = Method(
    "/ixc.v1.SessionService/CreateSession",
    session.CreateSessionRequest,
    session.CreateSessionResponse,
)
GET_SESSION = Method(
    "/ixc.v1.SessionService/GetSession", session.GetSessionRequest, session.GetSessionResponse
)
LIST_SESSIONS = Method(
    "/ixc.v1.SessionService/ListSessions", session.ListSessionsRequest, session.ListSessionsResponse
)
LIST_TURNS = Method(
    "/ixc.v1.SessionService/ListTurns", session.ListTurnsRequest, session.ListTurnsResponse
)
UPDATE_SESSION = Method(
    "/ixc.v1.SessionService/UpdateSession",
    session.UpdateSessionRequest,
    session.UpdateSessionResponse,
    retry_safe=False,
)
FORK_SESSION = Method(
    "/ixc.v1.SessionService/ForkSession", session.ForkSessionRequest, session.ForkSessionResponse
)
REWIND_SESSION = Method(
    "/ixc.v1.SessionService/RewindSession",
    session.RewindSessionRequest,
    session.RewindSessionResponse,
)
DELETE_SESSION = Method(
    "/ixc.v1.SessionService/DeleteSession",
    session.DeleteSessionRequest,
    session.DeleteSessionResponse,
)

COUNT_TOKENS = Method(
    "/ixc.v1.TokenService/CountTokens", token.CountTokensRequest, token.CountTokensResponse
)
TOKENIZE = Method("/ixc.v1.TokenService/Tokenize", token.TokenizeRequest, token.TokenizeResponse)
DETOKENIZE = Method(
    "/ixc.v1.TokenService/Detokenize", token.DetokenizeRequest, token.DetokenizeResponse
)

UPLOAD_MEDIA = Method(
    "/ixc.v1.MediaService/UploadMedia", media.UploadMediaRequest, media.UploadMediaResponse
)
GET_UPLOAD = Method(
    "/ixc.v1.MediaService/GetUpload", media.GetUploadRequest, media.GetUploadResponse
)
GET_MEDIA = Method("/ixc.v1.MediaService/GetMedia", media.GetMediaRequest, media.GetMediaResponse)
LIST_MEDIA = Method(
    "/ixc.v1.MediaService/ListMedia", media.ListMediaRequest, media.ListMediaResponse
)
DELETE_MEDIA = Method(
    "/ixc.v1.MediaService/DeleteMedia", media.DeleteMediaRequest, media.DeleteMediaResponse
)

GET_MODEL = Method("/ixc.v1.ModelService/GetModel", model.GetModelRequest, model.GetModelResponse)
LIST_MODELS = Method(
    "/ixc.v1.ModelService/ListModels", model.ListModelsRequest, model.ListModelsResponse
)
GET_SERVER_INFO = Method(
    "/ixc.v1.ModelService/GetServerInfo", model.GetServerInfoRequest, model.GetServerInfoResponse
)
GET_LOAD = Method("/ixc.v1.ModelService/GetLoad", model.GetLoadRequest, model.GetLoadResponse)

MERGE_LORA = Method(
    "/ixc.v1.WeightsService/MergeLora", weights.MergeLoraRequest, weights.MergeLoraResponse
)
QUANTIZE = Method(
    "/ixc.v1.WeightsService/Quantize", weights.QuantizeRequest, weights.QuantizeResponse
)
LOAD_MODEL = Method(
    "/ixc.v1.WeightsService/LoadModel", weights.LoadModelRequest, weights.LoadModelResponse
)
UNLOAD_MODEL = Method(
    "/ixc.v1.WeightsService/UnloadModel", weights.UnloadModelRequest, weights.UnloadModelResponse
)
LOAD_ADAPTER = Method(
    "/ixc.v1.WeightsService/LoadAdapter", weights.LoadAdapterRequest, weights.LoadAdapterResponse
)
UNLOAD_ADAPTER = Method(
    "/ixc.v1.WeightsService/UnloadAdapter",
    weights.UnloadAdapterRequest,
    weights.UnloadAdapterResponse,
)

WATCH_OPERATION = Method(
    "/ixc.v1.OperationService/WatchOperation",
    operation.WatchOperationRequest,
    operation.WatchOperationResponse,
)
GET_OPERATION = Method(
    "/ixc.v1.OperationService/GetOperation",
    operation.GetOperationRequest,
    operation.GetOperationResponse,
)
LIST_OPERATIONS = Method(
    "/ixc.v1.OperationService/ListOperations",
    operation.ListOperationsRequest,
    operation.ListOperationsResponse,
)
CANCEL_OPERATION = Method(
    "/ixc.v1.OperationService/CancelOperation",
    operation.CancelOperationRequest,
    operation.CancelOperationResponse,
)
DELETE_OPERATION = Method(
    "/ixc.v1.OperationService/DeleteOperation",
    operation.DeleteOperationRequest,
    operation.DeleteOperationResponse,
)
