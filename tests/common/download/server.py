"""A web server on loopback that follows a script: serve, drop, stall, redirect, limit, or send something wrong."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Act = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Records each request and answers it by the next act of the script, or normally after the last one."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        with self.server.guard:
            self.server.requests.append((self.path, dict(self.headers)))
            act = self.server.script.pop(0) if self.server.script else serve()
        self.close_connection = True
        with suppress(BrokenPipeError, ConnectionResetError):
            act(self)

    def log_message(self, *_: object) -> None:
        pass

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    @property
    def body(self) -> bytes:
        return self.server.files[self.path]


class Server(ThreadingHTTPServer):
    """`files` by path, the `script` of the next answers, the `requests` so far, the `etag` to send."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[Act] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.etag: str | None = '"one"'
        self.guard = threading.Lock()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"


@contextmanager
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def serve(*, cut: int | None = None, stall: float = 0, ranges: bool = True, delay: float = 0) -> Act:
    """Answer normally; `cut` the body after so many bytes, then `stall` for so many seconds before closing."""

    def act(handler: Handler) -> None:
        if handler.path not in handler.server.files:
            handler.head(404, Content_Length=0)
            return
        time.sleep(delay)
        body, etag = handler.body, handler.server.etag
        tags = {} if etag is None else {"ETag": etag}
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and ranges and handler.headers.get("If-Range", etag) == etag else 0
        if start and start >= len(body):
            handler.head(416, Content_Range=f"bytes */{len(body)}", Content_Length=0)
            return
        if start:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            handler.head(206, Content_Range=span, Content_Length=len(body) - start, **tags)
        else:
            handler.head(200, Content_Length=len(body), **tags)
        part = body[start:]
        handler.wfile.write(part if cut is None else part[:cut])
        handler.wfile.flush()
        time.sleep(stall)

    return act


def answer(status: int, body: bytes = b"", **headers: object) -> Act:
    """Answer with a status."""

    def act(handler: Handler) -> None:
        handler.head(status, Content_Length=len(body), **headers)
        handler.wfile.write(body)

    return act


def redirect(url: str) -> Act:
    return answer(302, Location=url)


def hang_up(handler: Handler) -> None:
    """Close the connection without an answer."""
    handler.connection.close()


def chunked(*, whole: bool = True) -> Act:
    """Send in chunks, without a length; if not `whole`, close before the last chunk."""

    def act(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked", ETag=handler.server.etag)
        for start in range(0, len(handler.body), 4000):
            piece = handler.body[start : start + 4000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if not whole:
                return
        handler.wfile.write(b"0\r\n\r\n")

    return act


def endless(handler: Handler) -> None:
    """Send without a length and without chunks, as HTTP/1.0 servers do."""
    handler.head(200)
    handler.wfile.write(handler.body)


def trickle(handler: Handler) -> None:
    """Send one byte every 50 ms for half a minute, or until the client disconnects."""
    handler.head(200, Content_Length=len(handler.body), ETag=handler.server.etag)
    for number in range(600):
        handler.wfile.write(handler.body[number : number + 1])
        handler.wfile.flush()
        time.sleep(0.05)
