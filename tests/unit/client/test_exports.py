"""What is public, and that the two clients are twins."""

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import ixc_client
from ixc_client import testing


def test_exported_names_are_the_visible_ones() -> None:
    """`__all__` names everything without an underscore but the modules; ruff keeps it sorted."""
    visible = {
        name
        for name, value in vars(ixc_client).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert sorted(ixc_client.__all__) == sorted(visible)


def test_testing_exports_its_own_names() -> None:
    """The fake server's module offers no more than it defines."""
    assert sorted(testing.__all__) == testing.__all__
    assert all(hasattr(testing, name) for name in testing.__all__)


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [
        (ixc_client.Client, ixc_client.AsyncClient),
        (ixc_client.Session, ixc_client.AsyncSession),
        (ixc_client.AnswerStream, ixc_client.AsyncAnswerStream),
        (ixc_client.OperationStream, ixc_client.AsyncOperationStream),
        (ixc_client.Weights, ixc_client.AsyncWeights),
        (ixc_client.Operations, ixc_client.AsyncOperations),
    ],
)
def test_twins_have_the_same_methods_and_parameters(blocking: type, asynchronous: type) -> None:
    """Code is carried from one client to the other by adding `await`."""

    def surface(kind: type) -> dict[str, object]:
        members = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
        return {
            name: "property"
            if isinstance(value, property)
            else [
                (parameter.name, parameter.kind, parameter.default)
                for parameter in inspect.signature(value).parameters.values()
            ]
            for name, value in members.items()
        }

    assert surface(asynchronous) == surface(blocking)


def test_importing_the_client_loads_nothing_of_the_server() -> None:
    """A plain install is enough: no imaging, arrays, models or terminal libraries."""
    heavy = {"numpy", "torch", "PIL", "rich", "msgspec", "ixc_runtime", "ixc_service", "ixc_cli"}
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}; import ixc_client, ixc_client.testing; "
        f"print(sorted(set(sys.modules) & {heavy!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
