"""A sample warehouse: POST /orders, as in docs/OPERATIONS.md, "Gateway contract".

Ships every order, except those with products `discontinued-*`. Stores effect and answer of each idempotency
key in one SQLite transaction, so that a repeated call has no second effect. Needs only the standard library.
"""

import argparse
import http.server
import json
import signal
import sqlite3
import sys
import threading
import uuid

SCHEMA = """
    pragma journal_mode = wal;
    -- A commit is durable when it returns.
    pragma synchronous = full;
    create table if not exists shipments (
        reference text primary key, order_id text unique not null, items text not null);
    create table if not exists answers (key text primary key, status integer not null, body text not null);
"""
# Maximum wait for calls that arrived before, in seconds. Shorter than fulfillment.timeout_ms.
BUSY_TIMEOUT_S = 2


class Warehouse:
    """Shipments and answers in a database."""

    def __init__(self, path):
        # Transactions are begun explicitly. Threads share the connection, one at a time.
        self.database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self.database.executescript(SCHEMA)
        self.lock = threading.Lock()

    def fulfil(self, key, order):
        """Returns status and body of the answer to a call."""
        # Duplicates wait here until the first call has stored its answer.
        if not self.lock.acquire(timeout=BUSY_TIMEOUT_S):
            return 503, {"reason": "busy"}
        try:
            # Also excludes other processes that use the database.
            self.database.execute("begin immediate")
            try:
                answer = self.find_answer(key) or self.record_answer(key, order)
                # Effect and answer become durable together, before the answer is sent.
                self.database.execute("commit")
            finally:
                if self.database.in_transaction:
                    self.database.execute("rollback")
            return answer
        except sqlite3.Error as error:
            return 503, {"reason": f"database: {error}"}
        finally:
            self.lock.release()

    def find_answer(self, key):
        row = self.database.execute("select status, body from answers where key = ?", (key,)).fetchone()
        return row and (row[0], json.loads(row[1]))

    def record_answer(self, key, order):
        """Has the effect of a new key, and records its answer."""
        status, body = self.ship(order)
        self.database.execute("insert into answers values (?, ?, ?)", (key, status, json.dumps(body)))
        return status, body

    def ship(self, order):
        products = [item["product_id"] for item in order["items"]]
        if gone := [product for product in products if product.startswith("discontinued-")]:
            return 422, {"code": "discontinued", "reason": f"{gone[0]} is not sold any more"}
        # A redrive has a new key. The order may have been shipped if its earlier answers were lost.
        row = self.database.execute("select reference from shipments where order_id = ?",
                                    (order["order_id"],)).fetchone()
        reference = row[0] if row else f"wh-{uuid.uuid4()}"
        if not row:
            self.database.execute("insert into shipments values (?, ?, ?)",
                                  (reference, order["order_id"], json.dumps(order["items"])))
        return 200, {"reference": reference}


class Handler(http.server.BaseHTTPRequestHandler):
    # Keeps connections open.
    protocol_version = "HTTP/1.1"
    # A client that sends nothing for this long is disconnected.
    timeout = 60
    warehouse: Warehouse

    def do_GET(self):
        self.respond(200 if self.path == "/health" else 404, {})

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Idempotency-Key")
        order = parse_order(content)
        if self.path != "/orders" or not key or not order:
            # Not 422, which would fail the order for good.
            self.respond(400, {"reason": "expected POST /orders with Idempotency-Key and an order"})
            return
        status, body = self.warehouse.fulfil(key, order)
        print(json.dumps({"order_id": order["order_id"], "key": key, "status": status, **body}), flush=True)
        self.respond(status, body)

    def respond(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def parse_order(content):
    """Returns the order of a request body, or None if it is invalid."""
    try:
        order = json.loads(content)
        is_valid = isinstance(order["order_id"], str) and order["items"] and all(
            isinstance(item["product_id"], str) for item in order["items"])
    except (ValueError, KeyError, TypeError):
        return None
    return order if is_valid else None


class Server(http.server.ThreadingHTTPServer):
    # The default of 5 refuses connections when many workers connect at once.
    request_queue_size = 128


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--listen", default="127.0.0.1:8081", metavar="HOST:PORT")
    arguments.add_argument("--database", default="warehouse.sqlite", metavar="FILE")
    options = arguments.parse_args()
    host, port = options.listen.rsplit(":", 1)
    Handler.warehouse = Warehouse(options.database)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Server((host, int(port)), Handler) as server:
        print(json.dumps({"listening": f"{host}:{server.server_port}"}), flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
