// Texts from customers, operators, the gateway and addresses, made to harm: shown as they are, inert.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

const TEXTS = [
  "<script>alert(1)</script>",
  "\"><img src=x onerror=alert(1)>",
  "'-alert(1)-' `&lt;",
  "javascript:alert(1)//",
  "\u202Eesrever \u2066isolate",
  "👩‍👩‍👧‍👦 🏳️‍🌈 emoji",
  `combined${"\u0301\u0327".repeat(30)}`,
  "{{7*7}} ${7*7} <%= 7*7 %>",
  "line one\nline two\ttab",
  "x".repeat(256),
];
const ALL = TEXTS.join(" ");
/** The API refuses control characters in texts of operators. */
const REASON = ALL.replaceAll(/[\n\t]/g, " ");
/** Opens a direction and an isolate, and closes neither. */
const ACTOR = "\u202E\u2066<script>alert(1)</script>";

let browser;
let system;
let orders;

/** Sends a command with hostile texts. */
async function act(path) {
  const { status, body } = await system.api(path, { method: "POST", body: { reason: REASON, actor: ACTOR } });
  assert.ok(status < 300, `${path}: ${JSON.stringify(body)}`);
}

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start()]);
  Object.assign(system.warehouse, { reference: ALL, refusal: ALL, failure: ALL, code: ALL });
  const items = TEXTS.map((product_id) => ({ product_id, quantity: 1 }));
  const customers = [TEXTS[1], TEXTS[4], TEXTS[9]];
  orders = {};
  for (const [index, behaviour] of ["fulfil", "refuse", "fail"].entries()) {
    [orders[behaviour]] = await system.placeEnded(1, behaviour, { customer: customers[index], items });
  }
  for (const customer of TEXTS) [orders.latest] = await system.placeEnded(1, "fail", { customer });
  await act(`/v1/orders/${orders.fail}/redrive`);
  await waitFor("the second attempt has ended", async () => {
    const { body: order } = await system.api(`/v1/orders/${orders.fail}`);
    return order.attempt === 2 && order.status === "FAILED";
  });
  await act("/v1/ops/worker/pause");
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Opens a page and checks that no text has become an element. */
async function openInert(visitor, path) {
  const { page } = visitor;
  await page.goto(system.url + path);
  const made = page.locator("main :is(script, img, iframe, style), [onerror], [href^='javascript:' i]");
  assert.equal(await made.count(), 0, `${path} contains elements of a text`);
  await visitor.assertFits();
}

/** Returns the stored texts as the page shows them. */
const textsOf = (locator) => locator.evaluateAll((elements) => elements.map((element) => element.textContent));

test("pages that show stored texts are inert, accessible and fit narrow screens", async () => {
  const visitor = await Visitor.arrive(browser, { viewport: { width: 320, height: 800 } });
  const { fulfil, refuse, fail } = orders;
  const paths = [
    "/console", "/console/orders", `/console/orders/${fulfil}`, `/console/orders/${refuse}`,
    `/console/orders/${fail}?at=3&from=0&to=6`, `/console/orders/${fail}/redrive`,
    `/console/orders/${fail}/discard`, "/console/dead-letters", "/console/dead-letters?stage=fulfillment",
    `/console/dead-letters/${refuse}`, `/console/dead-letters/${fail}`,
    "/console/dead-letters/redrive?stage=dead_letter", `/console/dead-letters/discard?order_id=${fail}`,
    "/console/workers", "/console/workers/resume", "/console/feed", "/console/actions",
  ];
  for (const path of paths) await openInert(visitor, path);
  for (const path of ["/console", `/console/orders/${fail}`, `/console/dead-letters/${fail}`, "/console/actions"]) {
    await openInert(visitor, path);
    await visitor.assertAccessible();
  }
  await visitor.leave();
});

test("pages that repeat a text of their address are inert and fit narrow screens", async () => {
  const visitor = await Visitor.arrive(browser, { viewport: { width: 320, height: 800 } });
  const { fail } = orders;
  for (const text of [TEXTS[1], `${TEXTS[4]}${TEXTS[0]}`, TEXTS[9]]) {
    const value = encodeURIComponent(text);
    const paths = [
      `/console/orders?q=${value}`, `/console/orders?customer=${value}`, `/console/orders?from=${value}`,
      `/console/orders?cursor=${value}`, `/console/orders/${value}`,
      `/console/orders/${fail}?at=${value}&from=${value}`,
      `/console/dead-letters?code=${value}&customer=${value}`, `/console/dead-letters/${value}`,
      `/console/dead-letters/tasks/${value}`, `/console/feed?order_id=${value}&types=${value}`,
      `/console/actions?actor=${value}&kind=${value}&from=${value}`, `/console/sign-in?next=${value}`,
      `/console/${value}`,
    ];
    for (const path of paths) await openInert(visitor, path);
  }
  await visitor.leave();
});

test("texts are shown unchanged", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/orders`);
  const links = page.locator("tbody td:nth-child(2) a");
  const customers = await textsOf(links);
  assert.deepEqual(TEXTS.filter((text) => !customers.includes(text)), []);
  const linked = (all) => all.map((link) => new URL(link.href).searchParams.get("customer"));
  assert.deepEqual(await links.evaluateAll(linked), customers);
  await links.nth(customers.indexOf(TEXTS[8])).click();
  await page.waitForURL(/customer=/);
  assert.deepEqual(await textsOf(page.locator("h2 bdi")), [TEXTS[8]]);
  await page.goto(`${system.url}/console/orders/${orders.fail}`);
  assert.deepEqual(await textsOf(page.getByRole("region", { name: "Items" }).locator("tbody th")), TEXTS);
  await visitor.leave();
});

test("text that leaves a direction open does not turn the text after it", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/workers`);
  const state = page.locator("[data-region=state] dd", { hasText: "Paused" });
  // In one step: a live region may be replaced between two.
  const [actorEnd, timeStart] = await state.evaluate((element) => [
    element.querySelector("bdi").getBoundingClientRect().right,
    element.querySelector("time").getBoundingClientRect().left,
  ]);
  assert.ok(actorEnd <= timeStart, "the time stands before the actor");
  await visitor.leave();
});

test("redrive form keeps texts that no field can hold", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/orders/${orders.fail}/redrive`);
  await page.getByLabel("Reason").fill("<b>Again</b>");
  await page.getByRole("button", { name: "Redrive order" }).click();
  await page.getByText("The order is queued again: attempt 3.").waitFor();
  const { body } = await system.api(`/v1/orders/${orders.fail}`);
  assert.deepEqual(body.items.map((item) => item.product_id), TEXTS);
  await visitor.leave();
});

test("live rows of the feed are inert", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/feed?types=DeadLetterDiscarded`);
  await page.locator("#feed-status", { hasText: "Live" }).waitFor();
  await act(`/v1/dead-letters/${orders.latest}/discard`);
  await page.locator("tr[data-event]").waitFor();
  assert.deepEqual(await textsOf(page.locator("tr[data-event] td:last-child")), [ACTOR]);
  assert.equal(await page.locator("main script").count(), 0);
  await visitor.leave();
});
