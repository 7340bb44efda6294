"""Posts the events of the event stream to a URL, each at least once and in order.

WEBHOOK_SECRET signs the requests; DOFS_API_KEY is the API key, if the API needs one.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.request

# The API sends a comment every 15 seconds. A longer silence is a lost connection.
SILENCE_S = 45
ANSWER_TIMEOUT_S = 10
MAX_WAIT_S = 30
# Position before the first event.
BEGINNING = "0-0"


class RedirectRefusal(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: a redirected POST would lose its body, and another host would get the API key."""

    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(RedirectRefusal)


def load_position(file):
    return file.read_text().strip() if file.exists() else BEGINNING


def store_position(file, position):
    """Replaces the position durably: a crash leaves the old or the new one."""
    temporary = file.with_suffix(".new")
    with temporary.open("w") as output:
        output.write(position)
        output.flush()
        os.fsync(output.fileno())
    temporary.replace(file)


def read_messages(lines):
    """Yields messages of a stream of server-sent events: dictionaries of their fields."""
    message = {}
    for line in lines:
        text = line.decode().rstrip("\r\n")
        if text:
            name, _, value = text.partition(":")
            message[name] = value.removeprefix(" ")
            continue
        # A message without its empty line was cut off.
        if "data" in message:
            yield message
        message = {}


def sign(secret, event_id, timestamp, body):
    digest = hmac.digest(secret, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def deliver(url, secret, body):
    """Posts an event until the receiver accepts it."""
    event_id = json.loads(body)["event_id"]
    wait_s = 0.1
    while True:
        timestamp = str(int(time.time()))
        headers = {"Content-Type": "application/json", "Webhook-Id": event_id, "Webhook-Timestamp": timestamp,
                   "Webhook-Signature": sign(secret, event_id, timestamp, body)}
        try:
            with OPENER.open(urllib.request.Request(url, body, headers), timeout=ANSWER_TIMEOUT_S):
                return
        except (OSError, http.client.HTTPException) as error:
            print(f"event {event_id} not delivered: {error}; next attempt in {wait_s:.1f} s", file=sys.stderr)
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, MAX_WAIT_S)


def follow(options, secret):
    """Forwards the events of one connection to the API."""
    query = f"?types={options.types}" if options.types else ""
    headers = {"Last-Event-ID": load_position(options.state), "Accept": "text/event-stream"}
    if key := os.environ.get("DOFS_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(f"{options.api}/v1/events/stream{query}", headers=headers)
    with OPENER.open(request, timeout=SILENCE_S) as stream:
        for message in read_messages(stream):
            if message["event"] == "reset":
                if json.loads(message["data"])["reason"] == "unknown_position":
                    sys.exit(f"event store does not have position {load_position(options.state)}: it was replaced or "
                             f"restored; delete {options.state} to send every event again")
                # Too slow: resume at the stored position.
                return
            deliver(options.to, secret, message["data"].encode())
            # Only after the delivery. In the other order, a crash in between would lose the event.
            store_position(options.state, message["id"])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--api", default="http://127.0.0.1:8080", metavar="URL")
    arguments.add_argument("--to", required=True, metavar="URL", help="URL of the receiver")
    arguments.add_argument("--state", default="position", type=pathlib.Path, metavar="FILE")
    arguments.add_argument("--types", default="", metavar="TYPES", help="types of events, separated by commas")
    options = arguments.parse_args()
    secret = os.environ["WEBHOOK_SECRET"].encode()
    while True:
        try:
            follow(options, secret)
        except urllib.error.HTTPError as error:
            if error.code in (400, 401, 403):
                sys.exit(f"event stream refused with status {error.code}: {error.read().decode(errors='replace')}")
            print(f"event stream unavailable: {error}", file=sys.stderr)
        except (OSError, http.client.HTTPException) as error:
            print(f"event stream unavailable: {error}", file=sys.stderr)
        time.sleep(2)


if __name__ == "__main__":
    main()
