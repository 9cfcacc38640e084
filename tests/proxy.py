"""A real server, through a proxy that answers some requests itself."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Answer = tuple[int, bytes]
Fault = Literal["reset", "lost"]


class Proxy:
    """Hands requests on to ``target``; ``rule`` answers those that it returns something for: ``(method, path) -> (status, body)``,
    or ``"reset"``, which hangs up, or ``"lost"``, which does so when the server has answered.

    ``uri``: its own address. ``asked``: every request, ``"PUT /api/…"``.
    """

    def __init__(self, target: str, port: int = 0) -> None:
        self.target, self.asked = urlsplit(target), list[str]()
        self.rule: Callable[[str, str], Answer | Fault | None] = lambda method, path: None
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self.port = self._server.server_port
        self.uri = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            proxy.asked.append(f"{self.command} {self.path}")
            ruled = proxy.rule(self.command, self.path)
            try:
                status, content = (
                    ruled if isinstance(ruled, tuple) else (0, b"") if ruled == "reset" else self.real(body)
                )
            except OSError:  # the server is down
                ruled = "reset"
            if isinstance(ruled, str):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            with suppress(ConnectionError):  # who asked may have been killed
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def real(self, body: bytes) -> Answer:
            kept = ("content-type", "accept", "range")
            headers = {k: v for k, v in self.headers.items() if k.lower() in kept}
            connection = http.client.HTTPConnection(proxy.target.hostname, proxy.target.port, timeout=120)
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler
