import os

os.environ["NAPARI_CONFIG"] = ""
# A widget left over after a test fails it.
os.environ["NAPARI_STRICT_QT"] = "raise"

import contextlib
import importlib
import sys
import threading

import pytest


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy()


@pytest.fixture
def widget(viewer, request):
    """The test module's `WIDGET`, docked."""
    widget = request.module.WIDGET(viewer)
    viewer.window.add_dock_widget(widget)
    return widget


@pytest.fixture(autouse=True, scope="session")
def torch_first():
    """Import torch before a window draws: its triton and Mesa's GL both bring LLVM.

    For tests of the dense network alone: the window's own process imports no torch, which
    `test_training_process` holds in processes of its own.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("torch.optim")


@pytest.fixture(autouse=True)
def fresh_session():
    from napari_defocus.widgets._shared.session import session

    session.cache_clear()


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path_factory):
    """Keep copies of annotations out of the user's own folders, and sessions apart."""
    from napari_defocus.widgets.annotate import recovery

    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setattr(recovery.platformdirs, "user_state_path", lambda *_, **__: folder)
    recovery.own_folder.cache_clear()
    yield folder
    recovery.own_folder.cache_clear()


@pytest.fixture(autouse=True)
def traced_jobs(monkeypatch):
    """Let coverage see jobs: it follows Python's own threads, and theirs are Qt's."""
    trace = threading.gettrace()
    if trace is not None:
        from napari_defocus.widgets._shared.jobs import Job

        work = Job.work

        def traced(job):
            sys.settrace(trace)
            return work(job)

        monkeypatch.setattr(Job, "work", traced)
