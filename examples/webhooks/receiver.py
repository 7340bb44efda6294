"""Receives the requests of forwarder.py: verifies the signature, and ignores repeated events.

WEBHOOK_SECRET is the secret of the forwarder, or several secrets separated by commas.
"""

import argparse
import base64
import hashlib
import hmac
import http.server
import json
import os
import signal
import sqlite3
import sys
import threading
import time

# Maximum age of a request. Older ones may have been recorded and sent again by an attacker.
TOLERANCE_S = 300
MAX_BODY_BYTES = 1024 * 1024


def is_authentic(secrets, headers, body, now):
    """Returns whether a request was signed recently with one of the secrets."""
    event_id, timestamp = headers.get("Webhook-Id", ""), headers.get("Webhook-Timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit()) or abs(now - int(timestamp)) > TOLERANCE_S:
        return False
    signed = f"{event_id}.{timestamp}.".encode() + body
    expected = ["v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets]
    actual = headers.get("Webhook-Signature", "")
    # In constant time: the duration must not tell how much of a forged signature is right.
    return any(hmac.compare_digest(actual.encode(), signature.encode()) for signature in expected)


class Inbox:
    """Events in a database."""

    def __init__(self, path):
        self.database = sqlite3.connect(path, check_same_thread=False)
        self.database.executescript("""
            pragma journal_mode = wal;
            pragma synchronous = full;
            create table if not exists events (id text primary key, order_id text, type text, body text);
        """)
        self.lock = threading.Lock()

    def record(self, event_id, event, body):
        """Returns whether the event is new."""
        # The effect belongs into the same transaction as the id: a crash between two would lose or repeat it.
        with self.lock, self.database:
            inserted = self.database.execute("insert or ignore into events values (?, ?, ?, ?)",
                                             (event_id, event["order_id"], event["type"], body.decode()))
            return inserted.rowcount == 1


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    inbox: Inbox
    secrets: list[bytes]

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self.respond(413)
            return
        body = self.rfile.read(length)
        # Before anything of the body is parsed.
        if not is_authentic(self.secrets, self.headers, body, time.time()):
            self.respond(401)
            return
        event = json.loads(body)
        is_new = self.inbox.record(self.headers["Webhook-Id"], event, body)
        print(json.dumps({"order_id": event["order_id"], "type": event["type"], "is_new": is_new}), flush=True)
        self.respond(200)

    def respond(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--listen", default="127.0.0.1:8082", metavar="HOST:PORT")
    arguments.add_argument("--database", default="received.sqlite", metavar="FILE")
    options = arguments.parse_args()
    host, port = options.listen.rsplit(":", 1)
    Handler.inbox = Inbox(options.database)
    Handler.secrets = [secret.encode() for secret in os.environ["WEBHOOK_SECRET"].split(",")]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with http.server.ThreadingHTTPServer((host, int(port)), Handler) as server:
        print(json.dumps({"listening": f"{host}:{server.server_port}"}), flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
