import os

os.environ["NAPARI_CONFIG"] = ""

import pytest


@pytest.fixture(autouse=True)
def fresh_session():
    from napari_defocus.widgets.session import session

    session.cache_clear()
