"""A sample warehouse that fulfils every order: POST /orders, as in docs/OPERATIONS.md, "Gateway contract".

Needs only Python's standard library. Argument: the port.

The reference is derived from the idempotency key, so a repeated call gets the same answer, also after a
restart. A real warehouse stores the key and the answer in the transaction that does the work.
"""

import hashlib
import http.server
import json
import signal
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    # Keeps connections open.
    protocol_version = "HTTP/1.1"
    # A client that sends nothing for this long is disconnected.
    timeout = 60

    def do_GET(self):
        self.respond(200 if self.path == "/health" else 404, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Idempotency-Key")
        try:
            order_id = json.loads(body)["order_id"]
        except (ValueError, KeyError, TypeError):
            order_id = None
        # Not 422, which would fail the order for good.
        if self.path != "/orders" or not key or not order_id:
            self.respond(400, {"reason": "expected POST /orders with Idempotency-Key and order_id"})
            return
        reference = "wh-" + hashlib.sha256(key.encode()).hexdigest()[:16]
        print(json.dumps({"order_id": order_id, "key": key, "reference": reference}), flush=True)
        self.respond(200, {"reference": reference})

    def respond(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def stop(*_):
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
