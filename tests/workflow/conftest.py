import pytest
from driver import small_copy, snakemake


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """A folder in which the small configuration was run to its report."""
    folder = small_copy(tmp_path_factory.mktemp("small"))
    status, text = snakemake(folder)
    assert status == 0, text
    return folder
