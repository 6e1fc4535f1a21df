"""A server of the protocol S3 on this machine: objects in memory, as much of it as a store needs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

Objects = dict[str, bytes]
"""By bucket and key, joined by a slash."""


@contextmanager
def serving() -> Iterator[tuple[str, Objects]]:
    """The address of a server, and its objects, while the context is open."""
    objects: Objects = {}
    handler = type("Handler", (_Handler,), {"objects": objects})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", objects
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    objects: Objects
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.objects[self._name()] = self._body()
        self._answer(200, headers={"ETag": '"0"'})

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "list-type" in query:
            self._list(query)
            return
        content = self.objects.get(self._name())
        if content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>absent</Message></Error>")
            return
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, content)
            return
        first, last = asked.groups()
        start = int(first) if first else max(0, len(content) - int(last))
        stop = min(len(content), int(last) + 1) if first and last else len(content)
        self._answer(206, content[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.objects.pop(self._name(), None)
        self._answer(204)

    def do_POST(self) -> None:
        """Several are deleted."""
        bucket = self._name().partition("/")[0]
        for key in re.findall(r"<Key>(.*?)</Key>", self._body().decode()):
            self.objects.pop(f"{bucket}/{unescape(key)}", None)
        self._answer(200, b"<DeleteResult></DeleteResult>")

    def _list(self, query: dict[str, list[str]]) -> None:
        bucket = self._name().partition("/")[0]
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        keys: list[str] = []
        folders: dict[str, None] = {}
        for name in sorted(self.objects):
            if not name.startswith(f"{bucket}/{prefix}"):
                continue
            key = name.removeprefix(f"{bucket}/")
            inside, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if found:
                folders[prefix + inside + delimiter] = None
            else:
                keys.append(key)
        told = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[f'{bucket}/{key}'])}</Size>"
            "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
        ) + "".join(f"<CommonPrefixes><Prefix>{escape(x)}</Prefix></CommonPrefixes>" for x in folders)
        count = len(keys) + len(folders)
        body = (
            f"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>{count}</KeyCount>{told}</ListBucketResult>"
        )
        self._answer(200, body.encode())

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self._unsigned(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return self._unsigned(found)

    def _unsigned(self, body: bytes) -> bytes:
        """Content of the coding aws-chunked without its lengths and checksums."""
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return body
        found, rest = b"", body
        while rest:
            line, _, rest = rest.partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            found, rest = found + rest[:size], rest[size + 2 :]
        return found

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        if status in (200, 206):
            self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
