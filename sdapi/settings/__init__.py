"""What this process was started with: `Settings`, made once from the flags and never changed.

What clients may change while the server runs are options, not settings.
"""

from sdapi.settings.flag_values import SettingsError
from sdapi.settings.from_flags import settings_from
from sdapi.settings.settings import Mount, Settings

__all__ = ["Mount", "Settings", "SettingsError", "settings_from"]
