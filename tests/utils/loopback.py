"""A web server on 127.0.0.1 for tests of downloads, which simulates faults of real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server(ThreadingHTTPServer):
    """Serves `content` under every path but /missing..., and records the Range header of each request in `requests`."""

    daemon_threads = True

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.ranges = True  # support Range requests
        self.chunked = False  # do not send the length
        self.sends_length = True  # if a range is not satisfiable
        self.max_bytes: int | None = None  # close the connection after this many bytes
        self.pause = 0.0  # seconds before the response
        self.stall = False  # stay silent with the connection open instead
        self.headers: dict[str, str] = {}  # sent with the content, such as ETag, or instead of those of this server
        self.honors_if_range = True
        self.shift = 0  # a range begins so many bytes later than was asked for
        self.status: int | None = None  # instead of the right one
        self.requests: list[str | None] = []
        self.released = threading.Event()

    def url(self, file_name: str = "file.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}/{file_name}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, byte_range = self.server, self.headers.get("Range")
        server.requests.append(byte_range)
        version = self.headers.get("If-Range")
        is_same = not server.honors_if_range or version in (None, *server.headers.values())
        start = int(byte_range.removeprefix("bytes=").rstrip("-")) if byte_range and server.ranges and is_same else 0
        server.released.wait(server.pause)
        if self.path.startswith("/missing"):
            return self.send_error(404)
        if start and start >= len(server.content):
            self.send_response(416)
            if server.sends_length:
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        is_range = bool(start)
        start += server.shift if is_range else 0
        body = server.content[start:]
        headers = {"Transfer-Encoding": "chunked"} if server.chunked else {"Content-Length": str(len(body))}
        if is_range or server.status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
        self.send_response(server.status or (206 if is_range else 200))
        for header in ({"Connection": "close"} | headers | server.headers).items():
            self.send_header(*header)
        self.end_headers()
        sent = body if server.max_bytes is None else body[: server.max_bytes]
        self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent) if server.chunked else sent)
        if server.chunked and server.max_bytes is None:
            self.wfile.write(b"0\r\n\r\n")
        if server.stall:
            server.released.wait(10)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve(content: bytes) -> Iterator[Server]:
    with Server(content) as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
