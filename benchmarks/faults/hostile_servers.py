"""Servers that do not serve: one never answers, one is not there, one dies in the midst."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

ANSWER = b'{"data": {}}'
HEADER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    b"Content-Length: %d\r\n\r\n"
)


class HostileServer:
    """Listens on a free port of this machine within its block.

    Args:
        answers: whether requests are answered (with an empty JSON object) until `die` is called;
            else connections are accepted and nothing ever comes back.

    Attributes:
        port: where it listens.
        accepted: connections so far.
        answered: requests that got an answer.
    """

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.accepted = self.answered = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self._dead = False

    def __enter__(self) -> HostileServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.die()

    def die(self) -> None:
        """Stop listening and cut every connection, whatever was being said on it."""
        with self._lock:
            self._dead = True
            for connection in (self._listener, *self._connections):
                with contextlib.suppress(OSError):  # wakes a thread that waits on it
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._connections.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._lock:
                    if self._dead:
                        connection.close()
                        return
                    self.accepted += 1
                    self._connections.append(connection)
                if self.answers:
                    threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            stream = connection.makefile("rb")
            while stream.readline():
                length = 0
                while (header := stream.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                stream.read(length)
                connection.sendall(HEADER % len(ANSWER) + ANSWER)
                self.answered += 1


def closed_port() -> int:
    """A port of this machine that refuses connections: it was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
