"""What every test has: a cache folder of its own."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keep what commands remember of their data (`diffad.places`) out of the user's cache folder."""
    patch = pytest.MonkeyPatch()
    patch.setattr(
        "diffad.places.user_cache_path", lambda name: tmp_path_factory.getbasetemp() / "cache" / name
    )
    yield
    patch.undo()
