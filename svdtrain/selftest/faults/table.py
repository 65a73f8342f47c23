"""All rows, by number."""

from __future__ import annotations

from svdtrain.selftest.faults import adapters, input_content, input_files, machine, numbers, ranks, settings

PARTS = (input_files, input_content, settings, machine, ranks, numbers, adapters)
TABLE = tuple(sorted((fault for part in PARTS for fault in part.ROWS), key=lambda fault: fault.number))
