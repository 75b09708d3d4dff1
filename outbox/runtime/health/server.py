"""The HTTP server of ``--health-port``, in threads of its own: it answers while a handler blocks the event loop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from outbox.errors import ConfigurationError
from outbox.runtime.health.worker_health import Problems

_CLIENT_SECONDS = 5.0
"""Seconds for a client that sends or reads slowly."""


class Response(NamedTuple):
    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"


METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

NO_METRICS = Response(
    HTTPStatus.NOT_FOUND, "metrics need the package prometheus-client: pip install 'outbox-queue[prometheus]'\n"
)

Routes = Mapping[str, Callable[[], Response]]
"""What is answered, by path. Called in any thread."""


def verdict(problems: Problems) -> Response:
    """200 where there is no problem, else 503 with one line for each."""
    if not problems:
        return Response(HTTPStatus.OK, "ok\n")
    return Response(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{problem}\n" for problem in problems))


class HealthServer:
    """Serves ``routes`` from `start` until `stop`."""

    def __init__(self, routes: Routes, host: str, port: int) -> None:
        self._routes = routes
        self._host = host
        self._port = port
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> str:
        """Returns the URL.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        try:
            self._server = _bind(self._host, self._port, _handler(self._routes))
        except OSError as error:
            raise ConfigurationError(
                f"--health-port: cannot listen on {self._host} port {self._port}: {error}; another worker may use it"
            ) from error
        # A thread that ends by itself with the process, however that ends.
        threading.Thread(target=self._server.serve_forever, name="outbox-health", daemon=True).start()
        host, port = str(self._server.server_address[0]), self._server.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _bind(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]

    class Server(ThreadingHTTPServer):
        address_family = family
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is no news."""

    return Server((host, port), handler)


def answer(connection: socket.socket, routes: Routes) -> None:
    """Answer one request on an open connection, and close it."""
    connection.settimeout(_CLIENT_SECONDS)
    try:
        _handler(routes)(connection, ("", 0), None)  # type: ignore[arg-type]
    except OSError:
        return  # it is gone
    finally:
        connection.close()


def _handler(routes: Routes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _CLIENT_SECONDS
        server_version, sys_version = "outbox", ""

        def do_GET(self) -> None:
            route = routes.get(urlsplit(self.path).path)
            response = route() if route is not None else Response(HTTPStatus.NOT_FOUND, _listing(routes))
            body = response.body.encode()
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the same

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the same
            """A probe every second is no news."""

    return Handler


def _listing(routes: Routes) -> str:
    return f"there are {', '.join(sorted(routes))}\n"
