// Places an order of one product and waits for its end: place-order.js PRODUCT QUANTITY.
import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const [product = "", quantity = "1"] = process.argv.slice(2);
const token = process.env.DOFS_API_KEY;
const client = createClient<paths>({
  baseUrl: process.env.DOFS_URL ?? "http://127.0.0.1:8080",
  headers: token === undefined ? {} : { Authorization: `Bearer ${token}` },
});
const body = { customer_id: "cust-example", items: [{ product_id: product, quantity: Number(quantity) }] };
// A real client stores the key with the order before the first request, so that a restart repeats it.
const header = { "Idempotency-Key": randomUUID(), Prefer: "wait=10" };

async function placeOrder() {
  for (let attempt = 0; attempt < 8; attempt += 1) {
    try {
      // Longer than the wait in `Prefer`.
      const signal = AbortSignal.timeout(30_000);
      const { data, error, response } = await client.POST("/v1/orders", { body, params: { header }, signal });
      if (data !== undefined && "source" in data) return data;
      // After a time-out (408), a conflict (409) and an error of the server or of a proxy (5xx), the order may exist.
      const isFinal = response.status < 500 && ![408, 409, 429].includes(response.status);
      if (data === undefined && isFinal) throw new Error(`refused: ${JSON.stringify(error)}`);
    } catch (error) {
      // `fetch` reports a lost connection as TypeError, the time-out as DOMException, and invalid JSON as SyntaxError.
      const isLost = error instanceof TypeError || error instanceof DOMException || error instanceof SyntaxError;
      if (!isLost) throw error;
      console.error(`no answer: ${error.message}`);
    }
    // The same key: a repetition returns the same order.
    await setTimeout(Math.min(2 ** attempt * 100, 5000));
  }
  throw new Error("the order has not ended; run the client again with the same key");
}

const order = await placeOrder();
console.log(order.order_id, order.status, order.reference ?? order.failure_reason);
