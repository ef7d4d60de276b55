"""The plugin's page in napari's Preferences: declared in the manifest, read here."""

from typing import Any

PLUGIN = "napari-defocus"
# What holds where napari has no such page (before 0.9).
DEFAULTS = {"metric": "default", "detector": "auto", "device": "auto"}


def preferred(name: str) -> str:
    """Return a preference: ``metric`` (a name or a file), ``detector`` or ``device``."""
    return str(getattr(_page(), name, "") or DEFAULTS[name])


def _page() -> Any:
    try:
        from napari.settings import get_plugin_settings

        return get_plugin_settings(PLUGIN).defaults
    except (ImportError, KeyError):  # an older napari; or the plugin is not installed as one
        return None
