"""Uses the client that openapi-python-client generates from openapi.json, against DOFS_URL."""

import os
import time

from dofs_client.api_client import Client
from dofs_client.api_client.api.operations import get_dead_letter, redrive_order
from dofs_client.api_client.api.orders import get_order, list_orders, place_order
from dofs_client.api_client.models import (
    DeadLetter,
    FailureStage,
    Order,
    OrderItem,
    OrderPage,
    OrderStatus,
    PlacedOrder,
    PlaceOrderRequest,
    RedriveOrderRequest,
    RedrivenOrder,
)

client = Client(base_url=os.environ["DOFS_URL"])

items = [OrderItem(product_id="prod-widget-001", quantity=2)]
placed = place_order.sync(client=client, body=PlaceOrderRequest(customer_id="cust-python", items=items))
assert isinstance(placed, PlacedOrder), placed

deadline = time.monotonic() + 30
while True:
    order = get_order.sync(placed.order_id, client=client)
    assert isinstance(order, Order), order
    if order.status is OrderStatus.FAILED:
        break
    assert time.monotonic() < deadline, order
    time.sleep(0.05)
assert order.stage is FailureStage.DEAD_LETTER, order
assert order.items[0].quantity == 2, order

while True:
    page = list_orders.sync(client=client, customer_id="cust-python")
    assert isinstance(page, OrderPage), page
    if page.items:
        break
    assert time.monotonic() < deadline
    time.sleep(0.05)
assert page.items[0].order_id == placed.order_id, page

letter = get_dead_letter.sync(placed.order_id, client=client)
assert isinstance(letter, DeadLetter), letter
assert letter.stage is FailureStage.DEAD_LETTER and len(letter.attempts) == 1, letter

body = RedriveOrderRequest(actor="ann", reason="try again")
redriven = redrive_order.sync(placed.order_id, client=client, body=body)
assert isinstance(redriven, RedrivenOrder) and redriven.attempt == 2, redriven
print("openapi-python-client: ok")
