"""What TensorBoard asks of the tab: a list of runs, and the viewer's page on some of them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from importlib import resources
from typing import Any
from urllib.parse import urlencode

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from cam_callbacks.compare.page import render_page, script_hash
from cam_callbacks.compare.run import LoadError
from cam_callbacks.tensorboard_plugin.watch import Watch

log = logging.getLogger(__name__)

REFRESH = 5.0  # seconds

App = Callable[..., Any]


class CAMPlugin(base_plugin.TBPlugin):
    """The tab CAM.

    Only names that the scan of the log folders found are served; no path that a browser sends is ever opened.
    """

    plugin_name = "cam"

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._watch = Watch(context.logdir)

    def is_active(self) -> bool:
        """Has any run records?"""
        try:
            return bool(self._watch.runs())
        except Exception as error:
            log.warning("cam-callbacks: the log folder cannot be searched (%s)", error)
            return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="CAM", disable_reload=True)

    def get_plugin_apps(self) -> dict[str, App]:
        return {
            "/index.js": _get(functools.partial(_asset, "index.js", "text/javascript")),
            "/index.css": _get(functools.partial(_asset, "index.css", "text/css")),
            "/runs": _get(self._runs),
            "/page": _get(self._page),
            "/data": _get(self._data),
        }

    def _runs(self, request: wrappers.Request) -> wrappers.Response:
        return http_util.Respond(request, {"runs": self._watch.listing()}, "application/json")

    def _page(self, request: wrappers.Request) -> wrappers.Response:
        """The viewer, which fetches its data from :meth:`_data` and asks again while the training goes on."""
        names = request.args.getlist("run")
        page = render_page(None, data_src=f"data?{urlencode({'run': names}, doseq=True)}", refresh=REFRESH, title="CAM")
        allowed = [script_hash().strip("'").removeprefix("sha256-")]
        return http_util.Respond(request, page, "text/html", csp_scripts_sha256s=allowed)

    def _data(self, request: wrappers.Request) -> wrappers.Response:
        names = request.args.getlist("run")
        try:
            tag = f'"{self._watch.version(names)}"'
            if request.headers.get("If-None-Match") == tag:  # nothing new: the browser has it
                return wrappers.Response(status=304, headers={"ETag": tag})
            data = self._watch.data(names)
        except KeyError as error:
            return _said(request, f"no run {error} with records below the log folder", 404)
        except (LoadError, OSError) as error:  # such as a folder that was deleted since the last scan
            return _said(request, str(error), 404)
        return http_util.Respond(request, data, "application/json", headers=[("ETag", tag)])


def _asset(name: str, kind: str, request: wrappers.Request) -> wrappers.Response:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return http_util.Respond(request, text, kind)


def _said(request: wrappers.Request, message: str, code: int) -> wrappers.Response:
    return http_util.Respond(request, message, "text/plain", code=code)


def _get(answer: Callable[[wrappers.Request], wrappers.Response]) -> App:
    """A WSGI application for GET and HEAD; an error is said to the browser, and TensorBoard goes on."""

    @wrappers.Request.application
    def app(request: wrappers.Request) -> wrappers.Response:
        if request.method not in ("GET", "HEAD"):
            return _said(request, "only GET", 405)
        try:
            return answer(request)
        except Exception as error:
            log.warning("cam-callbacks: %s failed", request.path, exc_info=True)
            return _said(request, f"{type(error).__name__}: {error}", 500)

    return app
