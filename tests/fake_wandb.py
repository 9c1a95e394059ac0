"""A server that takes runs of Weights & Biases, as far as a client notices; and bad ones."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeWandb:
    """Keeps history lines by their offset, as the service does; `with` starts and stops it.

    Args:
        port: 0 takes a free one.
        refuse: status that every request gets; 0 for none.
        die_after: lines of history after which it answers 500 to everything; -1 never.
    """

    def __init__(self, port: int = 0, refuse: int = 0, die_after: int = -1) -> None:
        self.lines: dict[int, str] = {}
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.files: set[str] = set()
        self.run = ""
        self.refuse, self.die_after = refuse, die_after
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                content = self.rfile.read(length)
                if self.headers.get("Content-Encoding") == "gzip":
                    content = gzip.decompress(content)
                status, reply = fake.answer(self.path, content)
                body = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> FakeWandb:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(self.lines[offset]) for offset in sorted(self.lines)]

    @property
    def last_step(self) -> int:
        return int(self.history[-1]["_step"]) if self.lines else -1

    def answer(self, path: str, content: bytes) -> tuple[int, Any]:
        if self.refuse:
            return self.refuse, {"errors": [{"message": "no"}]}
        if 0 <= self.die_after <= len(self.lines):
            return 500, {}
        if path.endswith("/file_stream"):
            self.stream(json.loads(content))
            return 200, {"exitcode": None, "limits": {}}
        if path == "/graphql":
            asked = json.loads(content)
            return 200, {"data": self.ask(asked["query"], asked.get("variables") or {})}
        return 200, {}

    def stream(self, sent: dict[str, Any]) -> None:
        for name, part in (sent.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                for place, line in enumerate(part["content"]):
                    self.lines[part["offset"] + place] = line
            elif name == "wandb-summary.json":
                self.summary = json.loads(part["content"][-1])

    def ask(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "pixcloud", "entity": {"id": "e", "name": "me"}}
        if "upsertBucket" in query:
            self.run = values.get("name") or self.run
            self.config = json.loads(values.get("config") or "{}") or self.config
            bucket = {"id": "r", "name": self.run, "displayName": self.run, "project": project}
            bucket |= {"config": "{}", "historyLineCount": len(self.lines), "sweepName": None}
            return {"upsertBucket": {"bucket": bucket, "inserted": not self.lines}}
        if "RunResumeStatus" in query:
            return {"model": {**project, "bucket": self.resumable() if self.run else None}}
        if "createRunFiles" in query:
            self.files |= set(values["files"])
            files = [{"name": name, "uploadUrl": f"{self.url}/put"} for name in values["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "historyKeys" in query:
            run = {"id": "r", "name": self.run, "projectId": "1", "state": "running", "tags": []}
            run |= {
                "config": "{}",
                "summaryMetrics": "{}",
                "systemMetrics": "{}",
                "user": {"name": "me", "username": "me"},
            }
            run |= {"historyKeys": {"lastStep": self.last_step, "keys": {}, "sets": []}}
            return {"project": {"run": run}}
        if "ArtifactType" in query:
            return {"project": None}
        if "viewer" in query:
            viewer = {"id": "v", "entity": "me", "username": "me", "flags": "{}"}
            return {"viewer": {**viewer, "email": "", "teams": {"edges": []}}}
        return {}

    def resumable(self) -> dict[str, Any]:
        tail = [self.lines[max(self.lines)]] if self.lines else []
        return {
            "id": "r",
            "name": self.run,
            "displayName": self.run,
            "config": "{}",
            "logLineCount": 0,
            "historyLineCount": len(self.lines),
            "eventsLineCount": 0,
            "historyTail": json.dumps(tail),
            "eventsTail": "[]",
            "tags": [],
            "notes": None,
            "summaryMetrics": json.dumps(self.summary),
            "wandbConfig": '{"t": 1}',
        }


class Silent:
    """A server that accepts and never answers; `with` starts and stops it."""

    def __enter__(self) -> Silent:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.taken: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        try:
            while True:
                self.taken.append(self.socket.accept()[0])
        except OSError:
            pass

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        for taken in self.taken:
            taken.close()


def refusing() -> str:
    """The address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"
