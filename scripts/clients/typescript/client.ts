// Uses openapi-fetch with the types that openapi-typescript generates from openapi.json, against DOFS_URL.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Order = components["schemas"]["Order"];
type OrderPage = components["schemas"]["OrderPage"];

const client = createClient<paths>({ baseUrl: process.env.DOFS_URL });

async function until<T>(read: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 600; tries += 1) {
    const value = await read();
    if (value !== undefined) return value;
    await setTimeout(50);
  }
  throw new Error("timed out");
}

const items = [{ product_id: "prod-widget-001", quantity: 2 }];
const body = { customer_id: "cust-typescript", items };
const placed = await client.POST("/v1/orders", { body });
assert.equal(placed.response.status, 202);
assert(placed.data !== undefined && "execution_arn" in placed.data);
const id: string = placed.data.order_id;

const order: Order = await until(async () => {
  const { data } = await client.GET("/v1/orders/{id}", { params: { path: { id } } });
  return data?.status === "FAILED" ? data : undefined;
});
assert.equal(order.stage, "dead_letter");

const page: OrderPage = await until(async () => {
  const query = { customer_id: "cust-typescript" };
  const { data } = await client.GET("/v1/orders", { params: { query } });
  return data?.items.length ? data : undefined;
});
assert.equal(page.items[0]?.order_id, id);

const letter = await client.GET("/v1/dead-letters/{id}", { params: { path: { id } } });
assert.equal(letter.data?.stage, "dead_letter");
assert.equal(letter.data?.attempts[0]?.ended?.outcome, "failed");

const redriven = await client.POST("/v1/orders/{id}/redrive", {
  params: { path: { id } },
  body: { actor: "ann", reason: "try again" },
});
assert.equal(redriven.response.status, 202);
assert.equal(redriven.data?.attempt, 2);
console.log("openapi-typescript: ok");
