"""Uses the client that openapi-generator (python) generates from openapi.json, against DOFS_URL."""

import os
import time

import dofs_generated as dofs

configuration = dofs.Configuration(host=os.environ["DOFS_URL"])
client = dofs.ApiClient(configuration)
orders, operations = dofs.OrdersApi(client), dofs.OperationsApi(client)

items = [dofs.OrderItem(product_id="prod-widget-001", quantity=2)]
request = dofs.PlaceOrderRequest(customer_id="cust-generated", items=items)
placed = orders.place_order(request)
assert isinstance(placed, dofs.PlacedOrder), placed

deadline = time.monotonic() + 30
while True:
    order = orders.get_order(placed.order_id)
    assert isinstance(order, dofs.Order), order
    if order.status == dofs.OrderStatus.FAILED:
        break
    assert time.monotonic() < deadline, order
    time.sleep(0.05)
assert order.failure_code and order.items[0].quantity == 2, order

while True:
    page = orders.list_orders(customer_id="cust-generated")
    assert isinstance(page, dofs.OrderPage), page
    if page.items:
        break
    assert time.monotonic() < deadline
    time.sleep(0.05)
assert page.items[0].order_id == placed.order_id, page

letter = operations.get_dead_letter(placed.order_id)
assert isinstance(letter, dofs.DeadLetter), letter
assert letter.stage == dofs.FailureStage.DEAD_LETTER and len(letter.attempts) == 1, letter

body = dofs.RedriveOrderRequest(actor="ann", reason="try again")
redriven = operations.redrive_order(placed.order_id, redrive_order_request=body)
assert isinstance(redriven, dofs.RedrivenOrder) and redriven.attempt == 2, redriven
print("openapi-generator: ok")
