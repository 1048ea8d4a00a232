"""How much memory there is and who has it (contract: webui-api 14)."""

import sys
from typing import Any

import psutil


def memory_report() -> dict[str, Any]:
    """Bytes of main memory and of the first GPU; a part that cannot be read holds `error`."""
    return {"ram": _ram(), "cuda": _cuda()}


def _ram() -> dict[str, Any]:
    """As the reference counts: all the memory, less what this process has."""
    used, total = psutil.Process().memory_info().rss, psutil.virtual_memory().total
    return {"free": float(total - used), "used": used, "total": float(total)}


def _cuda() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # a server that has not loaded it uses no GPU
    if torch is None or not torch.cuda.is_available():
        return {"error": "unavailable"}
    try:
        free, total = torch.cuda.mem_get_info()
        stats = dict(torch.cuda.memory_stats())
    except RuntimeError as error:
        return {"error": str(error)}
    watched = {
        "active": "active_bytes",
        "allocated": "allocated_bytes",
        "reserved": "reserved_bytes",
        "inactive": "inactive_split_bytes",
    }
    parts = {
        name: {
            "current": stats.get(f"{key}.all.current", 0),
            "peak": stats.get(f"{key}.all.peak", 0),
        }
        for name, key in watched.items()
    }
    system = {"free": free, "used": total - free, "total": total}
    events = {"retries": stats.get("num_alloc_retries", 0), "oom": stats.get("num_ooms", 0)}
    return {"system": system, **parts, "events": events}
