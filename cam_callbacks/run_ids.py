"""MLflow run ids, as users write them."""

from __future__ import annotations

import re

_RUN_ID = re.compile(r"(?:runs:/)?([0-9a-f]{32})(?:/(.+))?")


def parse_run_id(text: str) -> tuple[str, str | None] | None:
    """``(run id, artifact path or None)``, or None where the text is no run id. "runs:/" in front is understood."""
    match = _RUN_ID.fullmatch(text.strip().rstrip("/"))
    return (match[1], match[2]) if match else None
