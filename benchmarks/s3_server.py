"""A server of S3's on this machine: moto's, each of whose answers waits, and of which some say that it is busy.

It prints its port. A POST to ``/__settings`` of JSON sets ``latency`` (seconds a request), ``link`` (bytes a second
that all answers share) and ``busy`` (the share of GET and HEAD requests that are answered by 503); the answer is what
was asked for since the last one, by method.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from typing import Any

SLOW_DOWN = (
    '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
)


class Server:
    """The application: moto's behind what was said above."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.moto = DomainDispatcherApplication(create_backend_app)
        self.settings = {"latency": 0.0, "busy": 0.0, "link": 1e12}
        self.asked: Counter[str] = Counter()
        self.lock, self.link, self.random = threading.Lock(), threading.Lock(), random.Random(0)

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        from werkzeug.wrappers import Response

        if environ["PATH_INFO"] == "/__settings":
            self.settings |= json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            with self.lock:
                asked, self.asked = self.asked, Counter()
            return Response(json.dumps(asked))(environ, start)
        method = "LIST" if "list-type" in environ.get("QUERY_STRING", "") else environ["REQUEST_METHOD"]
        time.sleep(self.settings["latency"])
        with self.lock:
            is_busy = method in ("GET", "HEAD") and self.random.random() < self.settings["busy"]
            self.asked["503" if is_busy else method] += 1
        if is_busy:
            return Response(SLOW_DOWN if method == "GET" else "", 503, content_type="application/xml")(environ, start)
        answer = Response.from_app(self.moto, environ, buffered=True)
        if method == "GET":
            with self.link:
                time.sleep(len(answer.get_data()) / self.settings["link"])
        return answer(environ, start)


def main() -> None:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept

        def log(self, *_: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, Server(), threaded=True, request_handler=Handler)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
