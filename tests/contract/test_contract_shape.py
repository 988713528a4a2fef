"""What the contract is made of, beyond what `buf lint` can know."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from tests.contract import described

ROOT = Path(__file__).resolve().parents[2]
BASELINE = "protos/baseline.binpb"

RPCS = {
    "ChatService": ["Chat"],
    "GenerationService": [
        "Generate",
        "WatchGeneration",
        "GetGeneration",
        "ListGenerations",
        "CancelGeneration",
    ],
    "MediaService": ["UploadMedia", "GetUpload", "GetMedia", "ListMedia", "DeleteMedia"],
    "ModelService": ["GetModel", "ListModels", "GetServerInfo", "GetLoad"],
    "OperationService": [
        "WatchOperation",
        "GetOperation",
        "ListOperations",
        "CancelOperation",
        "DeleteOperation",
    ],
    "SessionService": [
        "CreateSession",
        "GetSession",
        "ListSessions",
        "ListTurns",
        "UpdateSession",
        "ForkSession",
        "RewindSession",
        "DeleteSession",
    ],
    "TokenService": ["CountTokens", "Tokenize", "Detokenize"],
    "WeightsService": [
        "MergeLora",
        "Quantize",
        "LoadModel",
        "UnloadModel",
        "LoadAdapter",
        "UnloadAdapter",
    ],
}

# Resource names: the field's comment shows the pattern, so that nobody has to guess it.
RESOURCE_FIELDS = {
    "generation": "generations/{generation}",
    "active_generation": "generations/{generation}",
    "session": "sessions/{session}",
    "model": "models/{model}",
    "output_model": "models/{model}",
    "operation": "operations/{operation}",
    "load_operation": "operations/{operation}",
    "turn": "sessions/{session}/turns/{turn}",
    "media": "media/{sha256}",
}


@pytest.mark.parametrize(
    "command",
    [
        "buf lint",
        "buf format --diff --exit-code",
        f"buf build --path protos/ixc -o - | buf breaking - --exclude-imports --against {BASELINE}",
    ],
)
def test_the_contract_under_buf(command: str) -> None:
    """STANDARD and COMMENTS hold without exceptions, and nothing published has been broken."""
    # buf is installed beside this interpreter, whether or not its environment is activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        command,
        shell=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_service_and_rpc() -> None:
    """A service is declared when the server answers it, and not before."""
    declared = {
        service.name: [method.name for method in service.descriptor.method]
        for service in described.services()
    }
    assert declared == RPCS


def test_numbers_set_aside_are_free() -> None:
    """A number announced for later in a comment is not used for anything else meanwhile."""
    promised = {
        (element.name, int(number)): name
        for element in (*described.messages(), *described.enums())
        for number, name in set_aside(element)
    }
    used = {
        (owner, number): name
        for owner, name, number in (
            *((*split(each), each.descriptor.number) for each in described.fields()),
            *((*split(each), each.descriptor.number) for each in described.enum_values()),
        )
    }
    assert promised, "the notation is read"
    assert {key: used[key] for key in promised.keys() & used.keys()} == {}


def set_aside(element: described.Element) -> list[tuple[str, str]]:
    """(number, name) pairs of a comment's "Set aside: 5 candidate, …" paragraph."""
    paragraph = re.search(r"Set aside: (.*?)(?:\n\s*\n|$)", element.comment, re.DOTALL)
    return re.findall(r"(\d+)\s+([A-Za-z]\w+)", paragraph[1]) if paragraph else []


def split(element: described.Element) -> tuple[str, str]:
    owner, _, name = element.name.rpartition(".")
    return owner, name


def test_unset_and_zero_can_be_told_apart_in_sampling() -> None:
    """Zero is a meaning of its own for every setting, so each scalar has presence."""
    scalars = [
        field.descriptor
        for field in described.fields()
        if field.name.startswith("SamplingParams.")
        and field.descriptor.label != FieldDescriptorProto.LABEL_REPEATED
    ]
    assert scalars
    assert [field.name for field in scalars if not field.proto3_optional] == []


# What each stream carries: an answer's events, or those of long work.
STREAMS = {
    "GenerationService.Generate": "GenerationEvent",
    "GenerationService.WatchGeneration": "GenerationEvent",
    "ChatService.Chat": "GenerationEvent",
    "OperationService.WatchOperation": "OperationEvent",
    "WeightsService.MergeLora": "OperationEvent",
    "WeightsService.Quantize": "OperationEvent",
    "WeightsService.LoadModel": "OperationEvent",
}


def test_streams_carry_two_kinds_of_events() -> None:
    """Whoever can read one stream of a kind can read all of them."""
    responses = {
        method.name: method.descriptor.output_type.rpartition(".")[2]
        for method in described.methods()
        if method.descriptor.server_streaming
    }
    assert set(responses) == set(STREAMS)
    by_name = {message.name: message.descriptor for message in described.messages()}
    for method, kind in STREAMS.items():
        (field,) = by_name[responses[method]].field
        assert (field.name, field.number, field.type_name) == ("event", 1, f".ixc.v1.{kind}")


def test_only_uploads_stream_from_the_client() -> None:
    """Browsers and JSON gateways can call all the rest; a turn is one RPC."""
    streaming = [each.name for each in described.methods() if each.descriptor.client_streaming]
    assert streaming == ["MediaService.UploadMedia"]


def test_every_list_has_pages() -> None:
    """Lists grow; paging cannot be added to them later."""
    by_name = {message.name: message.descriptor for message in described.messages()}
    for method in described.methods():
        rpc = method.descriptor.name
        if rpc.startswith("List"):
            asked = {field.name for field in by_name[f"{rpc}Request"].field}
            answered = {field.name for field in by_name[f"{rpc}Response"].field}
            assert {"page_size", "page_token"} <= asked, rpc
            assert "next_page_token" in answered, rpc


def test_one_word_for_each_thing() -> None:
    """An adapter is never a LoRA but where it is merged, a page never a block, a tile no slice."""
    elements = (
        *described.messages(),
        *described.fields(),
        *described.enums(),
        *described.enum_values(),
        *described.methods(),
    )
    strange = re.compile(r"lora|block|slice", re.IGNORECASE)
    merging = re.compile(r"merge_?lora", re.IGNORECASE)
    names = [merging.sub("", each.name) for each in elements]
    assert [name for name in names if strange.search(name)] == []


def test_resource_names_are_spelt_out() -> None:
    """Every field that holds a resource's name shows its pattern."""
    unspelt = [
        field.name
        for field in described.fields()
        if (pattern := RESOURCE_FIELDS.get(field.descriptor.name))
        and field.descriptor.type == FieldDescriptorProto.TYPE_STRING
        and f'"{pattern}"' not in field.prose
    ]
    assert unspelt == []


def test_every_request_id_states_its_alphabet() -> None:
    """A caller can choose a key without trial and error."""
    keys = [field for field in described.fields() if field.name.endswith("Request.request_id")]
    assert len(keys) == 7
    assert [key.name for key in keys if "1 to 128 characters of A-Z a-z 0-9" not in key.prose] == []


def test_any_is_confined_to_status_details() -> None:
    """No payload needs a registry of types to be read."""
    used = {field.descriptor.type_name for field in described.fields()}
    assert ".google.protobuf.Any" not in used
    assert ".google.protobuf.Struct" not in used
