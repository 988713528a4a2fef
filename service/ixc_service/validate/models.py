"""Checks of requests about models and adapters that are served, or could be."""

from ixc.v1 import model_pb2, model_service_pb2, weights_service_pb2
from ixc_runtime import BASE_ADAPTER
from ixc_runtime.models_root import MODEL_ID_RULE, is_model_id
from ixc_service.identifiers import model_id_of
from ixc_service.validate.findings import Findings


def check_model_name(name: str) -> None:
    """A malformed name is told apart from an unknown one. Empty is the default model."""
    findings = Findings()
    _check_model(findings, "name", name)
    findings.conclude()


def check_list_models(request: model_service_pb2.ListModelsRequest) -> None:
    findings = Findings()
    findings.enums("states", request.states, model_pb2.ModelState.DESCRIPTOR)
    findings.conclude()


def check_unload_model(request: weights_service_pb2.UnloadModelRequest) -> None:
    findings = Findings()
    _check_model(findings, "name", request.name, required=True)
    findings.conclude()


def check_load_adapter(request: weights_service_pb2.LoadAdapterRequest) -> str:
    """The adapter's id."""
    findings = Findings()
    _check_model(findings, "model", request.model)
    prefix, _, adapter_id = request.adapter.partition("/")
    if prefix != "adapters" or not is_model_id(adapter_id):
        findings.add("adapter", "MALFORMED", f"must be adapters/{{id}}; an id is {MODEL_ID_RULE}")
    if request.name:
        _check_adapter(findings, "name", request.name)
    findings.conclude()
    return adapter_id


def check_unload_adapter(request: weights_service_pb2.UnloadAdapterRequest) -> None:
    findings = Findings()
    _check_model(findings, "model", request.model)
    _check_adapter(findings, "name", request.name)
    findings.conclude()


def _check_model(findings: Findings, field: str, name: str, *, required: bool = False) -> None:
    # One that is served from a folder outside the models root is called as that folder is.
    if (name or required) and model_id_of(name) is None:
        findings.add(field, "MALFORMED", "must be models/{model}")


def _check_adapter(findings: Findings, field: str, name: str) -> None:
    if not is_model_id(name):
        findings.add(field, "MALFORMED", f"must be {MODEL_ID_RULE}")
    elif name == BASE_ADAPTER:
        findings.add(field, "NOT_ALLOWED", f"{BASE_ADAPTER!r} is the model without any adapter")
