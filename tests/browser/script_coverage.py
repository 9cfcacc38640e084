"""Which parts of the page's one script ran: V8 counts, where ``JS_COVERAGE`` names a folder (``make coverage-browser``)."""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path


def counted(page) -> Callable[[], None]:
    """Count from here on; what is returned writes the counts, and is called before the page is closed."""
    if "JS_COVERAGE" not in os.environ:
        return lambda: None
    folder = Path(os.environ["JS_COVERAGE"])
    folder.mkdir(parents=True, exist_ok=True)
    session = page.context.new_cdp_session(page)
    session.send("Profiler.enable")
    session.send("Debugger.enable")
    session.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": True})

    def write() -> None:
        for script in session.send("Profiler.takePreciseCoverage")["result"]:
            source = session.send("Debugger.getScriptSource", {"scriptId": script["scriptId"]})["scriptSource"]
            at = source.find("/*! cam-callbacks viewer")
            if at >= 0:
                found = {"at": at, "functions": script["functions"]}
                (folder / f"{uuid.uuid4()}.json").write_text(json.dumps(found))

    return write
