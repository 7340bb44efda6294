"""Runs the programs of examples/ against `dofs dev`, with faults. scripts/check-examples prepares the clients."""

import argparse
import concurrent.futures
import contextlib
import http.client
import http.server
import importlib.util
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT_S = 60
N_ORDERS = 24
SECRET = "sample-secret"


class Process:
    """A program that prints JSON lines, one of which names its address."""

    def __init__(self, log, command, environment=None):
        self.log, self.command, self.environment = log, [str(part) for part in command], environment or {}
        self.process = None

    def start(self):
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, env={**os.environ, **self.environment},
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return offset

    def wait_for(self, pattern, offset=0):
        """Returns the group of the pattern in the log."""
        def find():
            assert self.process.poll() is None, f"{self.command} has ended:\n{self.log.read_text()[-2000:]}"
            return re.search(pattern, self.log.read_text()[offset:])
        return wait_until(find, f"{pattern} in {self.log}")[1]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=LIMIT_S)


class Server(Process):
    """A server of examples/, restarted at the same address."""

    address = "127.0.0.1:0"

    def start(self):
        command, self.command = self.command, [*self.command, "--listen", self.address]
        offset = super().start()
        self.command = command
        self.address = self.wait_for(r'"listening": ?"([^"]+)"', offset)


class FaultyProxy:
    """Forwards HTTP requests to a server, and loses some answers.

    `fault` decides about each request: None, "lost" (the answer is dropped), or "killed" (the server is killed
    after its answer, and restarted).
    """

    def __init__(self, server, fault):
        proxy = self
        self.server, self.fault, self.n_faults = server, fault, 0
        self.numbers, self.restart = itertools.count(), threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                proxy.forward(self, body)

            def log_message(self, *_):
                pass

        self.listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.listener.daemon_threads = True
        # Clients that close their connections early are part of the check.
        self.listener.handle_error = lambda *_: None
        self.url = f"http://127.0.0.1:{self.listener.server_port}"
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    def forward(self, handler, body):
        fault = self.fault(next(self.numbers))
        handler.close_connection = fault is not None
        try:
            status, headers, content = post(self.server.address, handler.path, body, dict(handler.headers))
        except (OSError, http.client.HTTPException):
            # The server was killed by another request.
            handler.close_connection = True
            return
        if fault:
            self.n_faults += 1
            if fault == "killed":
                with self.restart:
                    self.server.kill()
                    self.server.start()
            return
        handler.send_response(status)
        for name in ("Retry-After", "Content-Type"):
            if value := headers.get(name):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


def post(address, path, body, headers):
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def wait_until(condition, description, limit_s=LIMIT_S):
    deadline = time.monotonic() + limit_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {limit_s} s: {description}"
        time.sleep(0.05)


class System:
    """`dofs dev` with a gateway."""

    def __init__(self, dofs, folder, gateway_url=None):
        gateway = {"DOFS__FULFILLMENT__GATEWAY": "http", "DOFS__FULFILLMENT__URL": f"{gateway_url}/orders"}
        self.process = Process(folder / "dofs.log", [dofs, "dev", "--data", folder / "data", "--listen", "127.0.0.1:0",
                                                     "--node-listen", "127.0.0.1:0"], {
            "DOFS_LOG": "json", "DOFS__FULFILLMENT__BACKOFF_MS": "50", "DOFS__FULFILLMENT__MAX_RETRIES": "50",
            "DOFS__FULFILLMENT__BREAKER_OPEN_MS": "100", **(gateway if gateway_url else {})})
        self.process.start()
        self.url = "http://" + self.process.wait_for(r'"HTTP server listening".*"address":"([^"]+)"')

    def request(self, path, body=None):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode() if body else None)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def place_order(self, product="prod-widget-001"):
        order = {"customer_id": "cust-example", "items": [{"product_id": product, "quantity": 2}]}
        return self.request("/v1/orders", order)["order_id"]

    def wait_for_end(self, order_id):
        def ended():
            order = self.request(f"/v1/orders/{order_id}")
            return order if order["status"] != "PROCESSING" else None
        return wait_until(ended, f"end of order {order_id}")


# Gateways.


class PythonGateway(Server):
    def __init__(self, folder, *flags):
        self.file = folder / "warehouse.sqlite"
        super().__init__(folder / "warehouse.log", [sys.executable, ROOT / "examples/python/warehouse.py",
                                                    "--database", self.file, *flags])

    def shipments(self):
        """Returns the references of each shipped order."""
        with contextlib.closing(sqlite3.connect(self.file)) as database:
            return {order: [reference] for order, reference in
                    database.execute("select order_id, reference from shipments")}

    @contextlib.contextmanager
    def busy(self):
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as database:
            database.execute("begin immediate")
            yield
            database.execute("rollback")


class TypescriptGateway(Server):
    def __init__(self, folder, build, *flags):
        self.file, self.build, self.folder = folder / "warehouse.jsonl", build, folder
        super().__init__(folder / "warehouse.log", ["node", build / "warehouse.js", "--file", self.file, *flags])

    def shipments(self):
        shipments = {}
        for line in self.file.read_text().splitlines():
            entry = json.loads(line)
            if entry["status"] == 200:
                shipments.setdefault(entry["order_id"], set()).add(entry["body"]["reference"])
        return {order: sorted(references) for order, references in shipments.items()}

    @contextlib.contextmanager
    def busy(self):
        """Restarts the gateway with no room for new calls."""
        self.stop()
        self.command += ["--max-in-flight", "0"]
        self.start()
        yield
        self.stop()
        del self.command[-2:]
        self.start()


def check_contract(gateway):
    """The answers of a gateway, without DOFS."""
    def call(key, order_id, product="prod-1", path="/orders"):
        order = {"order_id": order_id, "items": [{"product_id": product, "quantity": 1}]}
        status, headers, body = post(gateway.address, path, json.dumps(order), {"Idempotency-Key": key} if key else {})
        return status, json.loads(body), headers

    gateway.start()
    status, first, _ = call("o1:1", "o1")
    assert status == 200 and first["reference"], first
    assert call("o1:1", "o1")[:2] == (200, first), "a repeated call gets another answer"
    assert call("o1:2", "o1")[:2] == (200, first), "a redrive ships an order twice"
    refused = call("o2:1", "o2", "discontinued-1")
    assert refused[0] == 422 and refused[1]["code"] == "discontinued", refused
    assert call("o2:1", "o2", "prod-1")[:2] == refused[:2], "a repeated call gets another answer"
    for answer in (call(None, "o3"), call("o3:1", 3), call("o3:1", "o3", path="/other")):
        assert answer[0] == 400, answer
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: call("o4:1", "o4")[:2], range(16)))
    assert answers == [answers[0]] * 16 and answers[0][0] == 200, answers
    with gateway.busy():
        status, _, headers = call("o5:1", "o5")
        assert status == 503 and headers["Retry-After"], status
    assert "o5" not in gateway.shipments(), "a busy gateway ships"
    assert call("o5:1", "o5")[0] == 200
    gateway.kill()
    gateway.start()
    assert call("o1:1", "o1")[:2] == (200, first), "a restarted gateway gives another answer"
    assert call("o2:1", "o2")[:2] == refused[:2], "a restarted gateway gives another answer"
    assert all(len(references) == 1 for references in gateway.shipments().values())
    assert gateway.shipments().keys() == {"o1", "o4", "o5"}, gateway.shipments()


def check_torn_line(gateway):
    """A line that a crash has cut off was never answered."""
    gateway.kill()
    with gateway.file.open("a") as file:
        file.write('{"key":"o6:1","order_id":"o6","status":200,"bo')
    gateway.start()
    body = json.dumps({"order_id": "o6", "items": [{"product_id": "prod-1", "quantity": 1}]})
    assert post(gateway.address, "/orders", body, {"Idempotency-Key": "o6:1"})[0] == 200
    assert "o6" in gateway.shipments()


def check_fulfilment(name, dofs, folder, gateway):
    """Every order is shipped once, although answers are lost and the gateway is killed after its effect."""
    gateway.start()
    faults = {0: "killed", 1: "lost"}
    proxy = FaultyProxy(gateway, lambda number: faults.get(number % 7))
    system = System(dofs, folder, proxy.url)
    try:
        orders = [system.place_order() for _ in range(N_ORDERS)]
        refused = system.wait_for_end(system.place_order("discontinued-1"))
        assert (refused["status"], refused["failure_code"]) == ("FAILED", "discontinued"), refused
        ended = [system.wait_for_end(order) for order in orders]
        assert all(order["status"] == "FULFILLED" for order in ended), ended
        shipments = gateway.shipments()
        assert shipments == {order["order_id"]: [order["reference"]] for order in ended}, shipments
        assert proxy.n_faults >= 5 and any(order["deliveries"] > 1 for order in ended), "no fault had an effect"
        print(f"{name} gateway: {N_ORDERS} orders shipped once each, with {proxy.n_faults} faults", flush=True)
        return system, gateway
    except BaseException:
        system.process.stop()
        raise


# Clients.


def check_client(name, system, command):
    environment = {**os.environ, "DOFS_URL": system.url}
    placed = subprocess.run([*command, "prod-widget-001", "2"], env=environment, capture_output=True, text=True,
                            timeout=LIMIT_S, check=False)
    assert placed.returncode == 0 and " FULFILLED wh-" in placed.stdout, placed
    order_id = placed.stdout.split()[0]
    assert system.request(f"/v1/orders/{order_id}")["items"][0]["quantity"] == 2
    refused = subprocess.run([*command, "prod-widget-001", "101"], env=environment, capture_output=True, text=True,
                             timeout=LIMIT_S, check=False)
    assert refused.returncode == 1 and "100" in refused.stderr, refused
    print(f"{name} client: ok", flush=True)


def check_client_retries(name, system, command):
    """A client repeats its request with the same key until the API is reachable, and places one order."""
    n_before = len(list_orders(system))
    port = socket.socket()
    port.bind(("127.0.0.1", 0))
    address = port.getsockname()
    port.close()
    client = subprocess.Popen([*command, "prod-retried-001", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, env={**os.environ, "DOFS_URL": f"http://127.0.0.1:{address[1]}"})
    assert "no answer" in client.stderr.readline()
    relay = subprocess.Popen([sys.executable, __file__, "--relay", f"127.0.0.1:{address[1]}", system.url],
                             stdout=subprocess.DEVNULL)
    try:
        output, errors = client.communicate(timeout=LIMIT_S)
        assert client.returncode == 0 and " FULFILLED " in output, (output, errors)
    finally:
        relay.kill()
        relay.wait()
    # Orders are listed in the order of their events: with the newest one, the list also has every repetition.
    newest = system.place_order()
    wait_until(lambda: newest in list_orders(system), "the newest order is listed")
    assert len(list_orders(system)) == n_before + 2, "a repeated request places another order"
    print(f"{name} client: retries, ok", flush=True)


def list_orders(system):
    return {order["order_id"] for order in system.request("/v1/orders?limit=100")["items"]}


def relay(listen, url):
    """Copies connections to the API. The API gets every request; the first answers are lost or replaced by those of a
    proxy."""
    replacements = [b"", *(f"HTTP/1.1 {status} Proxy\r\nContent-Type: text/html\r\nConnection: close\r\n"
                           f"Content-Length: 13\r\n\r\n<html></html>".encode() for status in (502, 503))]
    host, port = listen.split(":")
    target = url.removeprefix("http://").split(":")
    listener = socket.create_server((host, int(port)))
    for number in itertools.count():
        connection, _ = listener.accept()
        upstream = socket.create_connection((target[0], int(target[1])))

        def copy(source, sink, replacement):
            while data := source.recv(65536):
                if replacement is not None:
                    sink.sendall(replacement)
                    sink.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(data)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        threading.Thread(target=copy, args=(connection, upstream, None), daemon=True).start()
        replacement = replacements[number] if number < len(replacements) else None
        threading.Thread(target=copy, args=(upstream, connection, replacement), daemon=True).start()


# Webhooks.


def read_all_events(system):
    """Returns (order id, event id) of every event of the stream, in order."""
    n_events = sum(len(system.request(f"/v1/orders/{order['order_id']}/history?limit=1000")["events"])
                   for order in system.request("/v1/orders?limit=100")["items"])
    request = urllib.request.Request(system.url + "/v1/events/stream", headers={"Last-Event-ID": "0-0"})
    events = []
    with urllib.request.urlopen(request, timeout=LIMIT_S) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                event = json.loads(line[len(b"data: "):])
                events.append((event["order_id"], event["event_id"]))
                if len(events) == n_events:
                    return events
    raise AssertionError("the event stream has ended")


def received_events(receiver):
    with contextlib.closing(sqlite3.connect(receiver.file)) as database:
        return database.execute("select order_id, id from events order by rowid").fetchall()


def check_webhooks(system, folder):
    receiver = Server(folder / "receiver.log", [sys.executable, ROOT / "examples/webhooks/receiver.py",
                                                "--database", folder / "received.sqlite"],
                      {"WEBHOOK_SECRET": f"new-secret,{SECRET}"})
    receiver.file = folder / "received.sqlite"
    receiver.start()
    faults = {3: "lost", 11: "killed"}
    proxy = FaultyProxy(receiver, lambda number: faults.get(number % 23))
    forwarder = Process(folder / "forwarder.log", [
        sys.executable, ROOT / "examples/webhooks/forwarder.py", "--api", system.url, "--to", f"{proxy.url}/events",
        "--state", folder / "position"], {"WEBHOOK_SECRET": SECRET})
    try:
        orders = []
        for _ in range(5):
            n_before = len(received_events(receiver))
            forwarder.start()
            orders += [system.place_order() for _ in range(3)]
            wait_until(lambda n=n_before: len(received_events(receiver)) > n + 3, "events arrive")
            forwarder.kill()
        for order in orders:
            system.wait_for_end(order)
        # Also while no forwarder runs.
        forwarder.start()
        expected = read_all_events(system)
        wait_until(lambda: len(received_events(receiver)) >= len(expected), "every event arrives")
        assert received_events(receiver) == expected, "events are missing, repeated or not in order"
        n_repeated = (folder / "receiver.log").read_text().count('"is_new": false')
        assert proxy.n_faults > 3 and n_repeated > 0, "no event was sent twice"
        print(f"webhooks: {len(expected)} events received once each, with {proxy.n_faults} lost answers and "
              f"{n_repeated} repeated deliveries", flush=True)
        check_signatures(receiver)
        check_unknown_position(forwarder, folder)
        check_redirects(system, folder)
    finally:
        forwarder.kill()
        receiver.stop()


def check_signatures(receiver):
    spec = importlib.util.spec_from_file_location("forwarder", ROOT / "examples/webhooks/forwarder.py")
    forwarder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(forwarder)
    body = json.dumps({"event_id": "e1", "order_id": "o1", "type": "OrderReceived"}).encode()

    def deliver(secret, event_id="e1", age_s=0, sent=body):
        timestamp = str(int(time.time()) - age_s)
        return post(receiver.address, "/events", sent, {
            "Webhook-Id": event_id, "Webhook-Timestamp": timestamp,
            "Webhook-Signature": forwarder.sign(secret.encode(), "e1", timestamp, body)})[0]

    n_before = len(received_events(receiver))
    refused = [deliver("wrong"), deliver(SECRET, event_id="e2"), deliver(SECRET, age_s=400),
               deliver(SECRET, age_s=-400), deliver(SECRET, sent=body + b" "),
               post(receiver.address, "/events", body, {})[0]]
    assert refused == [401] * 6, refused
    assert len(received_events(receiver)) == n_before
    # Both secrets of a rotation.
    assert [deliver(SECRET), deliver("new-secret")] == [200, 200]
    assert len(received_events(receiver)) == n_before + 1
    print("webhooks: signatures, ok", flush=True)


def check_unknown_position(forwarder, folder):
    """A forwarder whose position is not in the event store says so and ends."""
    forwarder.kill()
    (folder / "position").write_text("999999-999999")
    forwarder.start()
    assert forwarder.process.wait(timeout=LIMIT_S) == 1
    assert "replaced or restored" in forwarder.log.read_text()


def check_redirects(system, folder):
    """A forwarder follows no redirect: neither of the receiver nor of the API."""
    with http_server(lambda handler: handler.send_response(200)) as (target, requests), \
            http_server(lambda handler: (handler.send_response(302), handler.send_header("Location", target))) \
            as (redirecting, _):
        for api, receiver, message in [(system.url, redirecting, "not delivered: HTTP Error 302"),
                                       (redirecting, target, "event stream unavailable: HTTP Error 302")]:
            state = folder / "redirected"
            forwarder = Process(folder / "redirects.log", [
                sys.executable, ROOT / "examples/webhooks/forwarder.py", "--api", api, "--to", receiver,
                "--state", state], {"WEBHOOK_SECRET": SECRET, "DOFS_API_KEY": "secret"})
            forwarder.start()
            try:
                # Twice: the forwarder stays with the same event.
                forwarder.wait_for(f"(?s)({message}).*{message}")
            finally:
                forwarder.kill()
            assert not state.exists() and not requests, (message, requests)
    print("webhooks: redirects, ok", flush=True)


@contextlib.contextmanager
def http_server(answer):
    """Runs an HTTP server: its URL, and the methods and paths of its requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def respond(self):
            requests.append((self.command, self.path))
            answer(self)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = respond

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def run(dofs, build, folder):
    python = [sys.executable, ROOT / "examples/python/place_order.py"]
    typescript = ["node", build / "place-order.js"]
    gateways = {"python": PythonGateway, "typescript": lambda folder: TypescriptGateway(folder, build)}
    for name, new_gateway in gateways.items():
        for part in ("contract", "faults"):
            (folder / name / part).mkdir(parents=True)
        alone = new_gateway(folder / name / "contract")
        try:
            check_contract(alone)
            if name == "typescript":
                check_torn_line(alone)
        finally:
            alone.stop()
        print(f"{name} gateway: contract, ok", flush=True)
        system, gateway = check_fulfilment(name, dofs, folder / name / "faults", new_gateway(folder / name / "faults"))
        try:
            command = python if name == "python" else typescript
            check_client(name, system, command)
            check_client_retries(name, system, command)
            if name == "python":
                (folder / "webhooks").mkdir()
                check_webhooks(system, folder / "webhooks")
        finally:
            system.process.stop()
            gateway.stop()


def main():
    if sys.argv[1:2] == ["--relay"]:
        relay(*sys.argv[2:])
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--dofs", required=True, metavar="PROGRAM")
    arguments.add_argument("--build", required=True, metavar="FOLDER", type=pathlib.Path)
    options = arguments.parse_args()
    # Ends the programs also if this process is terminated.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dofs-examples-"))
    try:
        run(options.dofs, options.build, folder)
    except BaseException:
        print(f"check_examples: logs are in {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
