"""One tiny flow from a pack to the page that the tests of `score`, `aggregate` and `report` share."""

import pytest
import scored


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The flow, for tests that read its files and write elsewhere."""
    return scored.make(tmp_path_factory.mktemp("flow"))


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the flow, for tests that spoil its files."""
    return whole.copy(tmp_path)
