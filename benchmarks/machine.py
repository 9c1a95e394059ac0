"""What the numbers were measured on: processor, cores, vector and matrix units, libraries."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from pixcloud.machine import available_cores

PROCESSOR = Path("/proc/cpuinfo")
# Names that tables show, and flags of the kernel that stand for them.
UNITS = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 bf16": "avx512_bf16",
    "AMX bf16": "amx_bf16",
}


def machine() -> dict[str, Any]:
    """Plain words and numbers, for JSON; `units` says which of the units above are there."""
    try:
        name, units = processor(PROCESSOR.read_text(encoding="utf-8"))
    except OSError:
        name, units = "", "unknown"
    return {
        "processor": name or platform.processor() or platform.machine(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "units": units,
        "torch": torch.__version__,
    }


def processor(text: str) -> tuple[str, str]:
    """Name and units of the first processor in the kernel's list, "" where it names none.

    >>> processor("model name : Some CPU\\nflags : fma avx2 amx_bf16\\n")
    ('Some CPU', 'AVX2 yes, AVX-512 no, AVX-512 bf16 no, AMX bf16 yes')
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    if "flags" not in fields:  # no x86 processor
        return fields.get("model name", ""), "unknown"
    flags = set(fields["flags"].split())
    units = (f"{unit} {'yes' if flag in flags else 'no'}" for unit, flag in UNITS.items())
    return fields.get("model name", ""), ", ".join(units)
