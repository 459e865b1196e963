"""A blocking HTTP server on loopback that answers completions by a script, for tests of what measures servers."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable

Script = Callable[[dict[str, object]], Iterable[bytes]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(*documents: object) -> list[bytes]:
    """A streamed answer, one chunk an event."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    bodies = [b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents]
    return [head, *(chunk(body) for body in [*bodies, b"data: [DONE]\n\n"]), b"0\r\n\r\n"]


def completion(count: int) -> list[bytes]:
    texts = [{"choices": [{"index": 0, "text": "x"}]} for _ in range(count)]
    usage = {"prompt_tokens": 7, "completion_tokens": count + 1, "prompt_tokens_details": {"cached_tokens": 4}}
    return events(*texts, {"choices": [], "usage": usage})


class Server:
    """A blocking HTTP server on loopback that answers by a script, one thread a connection."""

    def __init__(self) -> None:
        self.script: Script = lambda body: completion(3)
        self.bodies: list[dict[str, object]] = []
        self.heads: list[bytes] = []
        self.num_connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """When nobody waits on the descriptor any more: as the next server's, it would bring its connections to this script."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()

    def is_number(self, number: int, body: dict[str, object]) -> bool:
        """Whether this was the so manieth request, counted from 1."""
        return len(self.bodies) >= number and self.bodies[number - 1] is body

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.num_connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """A client that has gone ends its thread without a word: pytest fails whichever test runs when a thread raises."""
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as source:
            while head := self._head(source):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = json.loads(source.read(length))
                self.heads.append(head)
                self.bodies.append(body)
                for part in self.script(body):
                    if not part:
                        return
                    connection.sendall(part)

    @staticmethod
    def _head(source: object) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line: bytes = source.readline()  # type: ignore[attr-defined]
            if not line:
                return b""
            head += line
        return head
