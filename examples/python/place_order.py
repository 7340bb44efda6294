"""Places an order of one product and waits for its end: place_order.py PRODUCT QUANTITY."""

import os
import sys
import time
import uuid

import httpx
from dofs_client import Client
from dofs_client.api.orders import place_order
from dofs_client.models import Order, OrderItem, PlacedOrder, PlaceOrderRequest

product, quantity = sys.argv[1], int(sys.argv[2])
token = os.environ.get("DOFS_API_KEY")
client = Client(base_url=os.environ.get("DOFS_URL", "http://127.0.0.1:8080"),
                headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=httpx.Timeout(30))
body = PlaceOrderRequest(customer_id="cust-example", items=[OrderItem(product_id=product, quantity=quantity)])
# A real client stores the key with the order before the first request, so that a restart repeats it.
key = str(uuid.uuid4())
for attempt in range(8):
    try:
        answer = place_order.sync_detailed(client=client, body=body, idempotency_key=key, prefer="wait=10")
    # KeyError and ValueError: a proxy has answered instead of the API, with other members or without JSON.
    except (httpx.TransportError, KeyError, ValueError) as error:
        print(f"no answer: {error}", file=sys.stderr)
    else:
        # After a time-out (408), a conflict (409) and an error of the server or of a proxy (5xx), the order may exist.
        is_final = answer.status_code < 500 and answer.status_code not in (408, 409, 429)
        # An accepted order may still be in progress.
        if is_final and not isinstance(answer.parsed, PlacedOrder):
            break
    # The same key: a repetition returns the same order.
    time.sleep(min(2**attempt * 0.1, 5))
else:
    sys.exit("the order has not ended; run the client again with the same key")
if not isinstance(answer.parsed, Order):
    sys.exit(f"refused with status {answer.status_code}: {answer.content.decode()}")
print(answer.parsed.order_id, answer.parsed.status, answer.parsed.reference or answer.parsed.failure_reason)
