"""The model that the fake server says it serves, and what it says of itself."""

from ixc.v1 import content_pb2, model_pb2, sampling_pb2
from ixc_client._fake_media import CHUNK_BYTES, INLINE_BYTES
from ixc_client._fake_sessions import CONTEXT_LIMIT

MODEL = model_pb2.Model(
    name="models/fake",
    display_name="Fake",
    description="Answers as scripted.",
    weights_digest="fa" * 32,
    context_limit=CONTEXT_LIMIT,
    vocab_size=0x110000,
    eos_token_ids=[0],
    default_sampling=sampling_pb2.SamplingParams(temperature=1.0, top_p=0.8),
    adapters=["web", "write"],
    image_input=model_pb2.ImageInput(
        tile_size=560, hd_num_single=24, hd_num_several=6, hd_num_max=36
    ),
    system_presets=[
        model_pb2.SystemPresetText(
            preset=content_pb2.SYSTEM_PRESET_META_INSTRUCTION_DEFAULT, text="You are a fake."
        )
    ],
    dtype=model_pb2.DATA_TYPE_FLOAT32,
)
SERVER = model_pb2.ServerInfo(
    version="0",
    instance="fake",
    default_model=MODEL.name,
    limits=model_pb2.Limits(
        context_limit=CONTEXT_LIMIT,
        max_message_bytes=4 << 20,
        max_inline_image_bytes=INLINE_BYTES,
        max_upload_chunk_bytes=CHUNK_BYTES,
    ),
    plan=model_pb2.StartupPlan(backend=model_pb2.BACKEND_CPU, page_size=16, num_pages=4096),
    capabilities=[
        model_pb2.CAPABILITY_IMAGE_INPUT,
        model_pb2.CAPABILITY_VIDEO_INPUT,
        model_pb2.CAPABILITY_ADAPTERS,
    ],
)
