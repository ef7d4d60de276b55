"""The plugin's page in napari's Preferences: declared in the manifest, read here."""

from contextlib import suppress

PLUGIN = "napari-defocus"
# What holds where napari has no such page (before 0.9).
DEFAULTS = {"metric": "default", "detector": "auto", "device": "auto"}


def preferred(name: str) -> str:
    """Return a preference: ``metric`` (a name or a file), ``detector`` or ``device``."""
    chosen = ""
    # An older napari; or the plugin is not installed as one.
    with suppress(ImportError, KeyError):
        from napari.settings import get_plugin_settings

        chosen = getattr(get_plugin_settings(PLUGIN).defaults, name, "")
    return str(chosen or DEFAULTS[name])
