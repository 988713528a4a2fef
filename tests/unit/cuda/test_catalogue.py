"""What may be launched is what is listed."""

import pytest

from ixc_cuda.catalogue import Instantiation, UnknownKernel, all_instantiations, find


def test_listed_kernels_are_found() -> None:
    for each in all_instantiations():
        assert find(each.source, each.name) == each


def test_unlisted_kernel_is_named() -> None:
    with pytest.raises(UnknownKernel, match=r"nothing<float> of absent\.cu"):
        find("absent.cu", "nothing<float>")


@pytest.mark.parametrize("architectures", [(), ("sm_75",), ("sm_80", "sm_100")])
def test_architecture_that_nobody_compiles_for(architectures: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected some of"):
        Instantiation(source="x.cu", name="x", architectures=architectures)


def test_list_has_an_order_and_no_doubles() -> None:
    keys = [(each.source, each.name) for each in all_instantiations()]
    assert keys == sorted(set(keys))
