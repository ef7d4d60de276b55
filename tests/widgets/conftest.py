import os

os.environ["NAPARI_CONFIG"] = ""
# A widget left over after a test fails it.
os.environ["NAPARI_STRICT_QT"] = "raise"

import pytest


@pytest.fixture(autouse=True)
def fresh_session():
    from napari_defocus.widgets.session import session

    session.cache_clear()
