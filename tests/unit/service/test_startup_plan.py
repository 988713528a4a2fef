"""The start-up plan in words."""

import msgspec

from ixc_service.startup_plan import plan_text
from tests.fakes.fake_engine import INFO, PLAN

GIB = 2**30


def test_a_gpu_is_told_of_part_by_part() -> None:
    """Also what no request sees: what steps work in, and what is kept for users' adapters."""
    plan = msgspec.structs.replace(
        PLAN, device="cuda", scratch_bytes=6 * GIB, adapter_room_bytes=2 * GIB
    )
    rows = [row.strip() for row in plan_text(INFO, plan, ("unix:ixc.sock",)).splitlines()]
    assert "set aside 6.0 GiB for steps, 2.0 GiB for users' adapters" in rows
    assert plan.total_bytes == 1000 + (1 << 20) + 8 * GIB


def test_of_a_host_nothing_is_set_aside() -> None:
    """What is free there is everybody's."""
    assert "set aside" not in plan_text(INFO, PLAN, ("unix:ixc.sock",))
