"""One check for each request. Each raises everything that is wrong with it, or returns nothing."""

from ixc.v1 import (
    chat_service_pb2,
    content_pb2,
    generation_pb2,
    generation_service_pb2,
    sampling_pb2,
    session_pb2,
    session_service_pb2,
    token_service_pb2,
)
from ixc_runtime import ModelInfo
from ixc_service.limits import Limits
from ixc_service.validate.findings import Findings
from ixc_service.validate.prompts import (
    check_flush_interval,
    check_labels,
    check_output,
    check_parts,
    check_prompt,
    check_run,
    check_sampling,
)

_MAX_REASON_BYTES = 255
_UPDATABLE = {"ttl", "labels", "default_sampling"}
_WithSystem = (
    generation_service_pb2.GenerateRequest
    | token_service_pb2.CountTokensRequest
    | session_pb2.Session
)


def _check_system(findings: Findings, field: str, request: _WithSystem) -> None:
    if request.HasField("system_preset"):
        findings.enum(field, request.system_preset, content_pb2.SystemPreset.DESCRIPTOR)
        if request.system_preset == content_pb2.SYSTEM_PRESET_UNSPECIFIED:
            findings.add(field, "MISSING", "must name a preset")


def _has_system(request: _WithSystem) -> bool:
    return request.HasField("system_preset") or bool(request.system_instruction)


def _starts_with_system(prompt: content_pb2.Prompt) -> bool:
    contents = prompt.contents.contents
    return len(contents) > 0 and contents[0].role == content_pb2.ROLE_SYSTEM


def check_generate(
    request: generation_service_pb2.GenerateRequest, limits: Limits, model: ModelInfo
) -> None:
    findings = Findings()
    findings.request_id(request.request_id)
    check_prompt(findings, request.prompt, limits, model)
    _check_system(findings, "system_preset", request)
    if _has_system(request):
        if request.prompt.HasField("tokens"):
            findings.add("system", "NOT_ALLOWED", "a prompt of token ids takes no system text")
        if _starts_with_system(request.prompt):
            findings.add("system", "NOT_ALLOWED", "the prompt has a ROLE_SYSTEM message already")
    check_sampling(findings, "sampling", request.sampling, limits, model)
    check_output(findings, request.output, limits)
    check_run(findings, request.run, limits)
    findings.sequence("after_sequence", request.after_sequence)
    check_labels(findings, "labels", request.labels, limits)
    findings.conclude()


def check_chat(request: chat_service_pb2.ChatRequest, limits: Limits, model: ModelInfo) -> None:
    findings = Findings()
    findings.request_id(request.request_id)
    findings.name("session", request.session, "sessions")
    if request.message.role not in {content_pb2.ROLE_UNSPECIFIED, content_pb2.ROLE_USER}:
        findings.add("message.role", "NOT_ALLOWED", "must be ROLE_USER or unset")
    check_parts(findings, {"message": request.message}, limits, model)
    if request.HasField("expected_turn") and request.expected_turn == 0:
        findings.add("expected_turn", "OUT_OF_RANGE", "is 0, allowed: at least 1")
    check_sampling(findings, "sampling", request.sampling, limits, model)
    check_output(findings, request.output, limits)
    check_run(findings, request.run, limits)
    findings.enum("busy_policy", request.busy_policy, chat_service_pb2.BusyPolicy.DESCRIPTOR)
    findings.enum("on_cancel", request.on_cancel, chat_service_pb2.PartialPolicy.DESCRIPTOR)
    findings.sequence("after_sequence", request.after_sequence)
    findings.conclude()


def check_name(name: str, collection: str, *, field: str = "name") -> None:
    findings = Findings()
    findings.name(field, name, collection)
    findings.conclude()


def check_watch(request: generation_service_pb2.WatchGenerationRequest) -> None:
    findings = Findings()
    findings.name("name", request.name, "generations")
    findings.sequence("after_sequence", request.after_sequence)
    if request.HasField("flush_interval"):
        check_flush_interval(findings, "flush_interval", request.flush_interval)
    findings.enum("delivery", request.delivery, sampling_pb2.Delivery.DESCRIPTOR)
    findings.conclude()


def check_cursor(after_sequence: int, last_sequence: int) -> None:
    findings = Findings()
    if after_sequence > last_sequence:
        findings.add(
            "after_sequence",
            "OUT_OF_RANGE",
            f"is {after_sequence}, the log ends at {last_sequence}",
        )
    findings.conclude()


def check_cancel(request: generation_service_pb2.CancelGenerationRequest) -> None:
    findings = Findings()
    findings.name("name", request.name, "generations")
    findings.size("reason", request.reason, _MAX_REASON_BYTES)
    findings.conclude()


def check_list_generations(request: generation_service_pb2.ListGenerationsRequest) -> None:
    findings = Findings()
    findings.name("session", request.session, "sessions", required=False)
    findings.enums("states", request.states, generation_pb2.GenerationState.DESCRIPTOR)
    findings.conclude()


# ---- sessions


def check_create_session(
    request: session_service_pb2.CreateSessionRequest, limits: Limits, model: ModelInfo
) -> None:
    findings, session = Findings(), request.session
    findings.request_id(request.request_id)
    findings.new_id("session_id", request.session_id)
    if session.name:
        findings.add("session.name", "NOT_ALLOWED", "must be empty; use session_id")
    _check_system(findings, "session.system_preset", session)
    _check_session_settings(findings, session, limits, model)
    findings.conclude()


def check_update_session(
    request: session_service_pb2.UpdateSessionRequest, limits: Limits, model: ModelInfo
) -> None:
    findings = Findings()
    findings.name("session.name", request.session.name, "sessions")
    paths = set(request.update_mask.paths)
    if not paths:
        findings.add("update_mask", "MISSING", f"must name some of {sorted(_UPDATABLE)}")
    for path in sorted(paths - _UPDATABLE):
        findings.add("update_mask", "NOT_ALLOWED", f"{path[:64]!r} cannot be changed")
    changed = session_pb2.Session()
    if paths <= _UPDATABLE:
        request.update_mask.MergeMessage(request.session, changed)
    _check_session_settings(findings, changed, limits, model)
    findings.conclude()


def _check_session_settings(
    findings: Findings, session: session_pb2.Session, limits: Limits, model: ModelInfo
) -> None:
    if session.HasField("ttl"):
        findings.duration("session.ttl", session.ttl, limits.max_session_ttl_seconds)
    check_labels(findings, "session.labels", session.labels, limits)
    check_sampling(findings, "session.default_sampling", session.default_sampling, limits, model)


def check_fork_session(request: session_service_pb2.ForkSessionRequest, limits: Limits) -> None:
    findings = Findings()
    findings.request_id(request.request_id)
    findings.name("name", request.name, "sessions")
    findings.new_id("session_id", request.session_id)
    if request.HasField("ttl"):
        findings.duration("ttl", request.ttl, limits.max_session_ttl_seconds)
    findings.conclude()


def check_rewind_session(request: session_service_pb2.RewindSessionRequest) -> None:
    findings = Findings()
    findings.name("name", request.name, "sessions")
    if not request.HasField("to_turn"):
        findings.add("to_turn", "MISSING", "must say how many turns remain; 0 is none")
    findings.conclude()


def check_list_sessions(request: session_service_pb2.ListSessionsRequest, limits: Limits) -> None:
    findings = Findings()
    check_labels(findings, "labels", request.labels, limits)
    findings.conclude()


def check_list_turns(request: session_service_pb2.ListTurnsRequest) -> None:
    findings = Findings()
    findings.name("parent", request.parent, "sessions")
    findings.enum("view", request.view, session_pb2.TurnView.DESCRIPTOR)
    findings.conclude()


# ---- tokens


def check_count_tokens(
    request: token_service_pb2.CountTokensRequest, limits: Limits, model: ModelInfo
) -> None:
    findings = Findings()
    findings.name("session", request.session, "sessions", required=False)
    check_prompt(findings, request.prompt, limits, model)
    _check_system(findings, "system_preset", request)
    if _has_system(request) and (request.session or request.prompt.HasField("tokens")):
        findings.add("system", "NOT_ALLOWED", "not with a session or a prompt of token ids")
    if _has_system(request) and _starts_with_system(request.prompt):
        findings.add("system", "NOT_ALLOWED", "the prompt has a ROLE_SYSTEM message already")
    if request.session:
        if request.model:
            findings.add("model", "NOT_ALLOWED", "must be empty with a session")
        contents = request.prompt.contents.contents
        if len(contents) != 1 or contents[0].role != content_pb2.ROLE_USER:
            findings.add("prompt", "NOT_ALLOWED", "with a session: one message of ROLE_USER")
    findings.conclude()


def check_detokenize(request: token_service_pb2.DetokenizeRequest, model: ModelInfo) -> None:
    findings = Findings()
    findings.token_ids("token_ids", request.token_ids, model.vocab_size)
    findings.conclude()
