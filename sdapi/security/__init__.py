"""Who may call, and which folders a caller may name."""

from sdapi.security.credentials import Credentials
from sdapi.security.save_dirs import resolve_save_dir

__all__ = ["Credentials", "resolve_save_dir"]
