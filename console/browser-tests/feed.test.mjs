// The live feed of events.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, setHidden, startBrowser } from "./visitor.mjs";

/** Number of rows that the page keeps. */
const MAX_ROWS = 200;

let browser;
let system;

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start()]);
  await system.placeEnded(2, "fulfil");
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Opens the feed and waits until it is live. */
async function openFeed(query = "") {
  const visitor = await Visitor.arrive(browser);
  await visitor.page.goto(`${system.url}/console/feed${query}`);
  await visitor.page.locator("#feed-status", { hasText: "Live" }).waitFor();
  return visitor;
}

const rowsOf = (page, id) => page.locator("[data-feed] tbody tr", { has: page.locator(`a[title="${id}"]`) });

/** Returns the shown types of an order's events, the newest first. */
const typesOf = (page, id) => rowsOf(page, id).locator("td:nth-child(2)").allInnerTexts();

/** Returns the ids of the shown events. */
const shownEvents = (page) =>
  page.locator("tr[data-event]").evaluateAll((rows) => rows.map((row) => row.dataset.event));

const ALL = ["OrderFulfilled", "OrderQueued", "OrderStored", "OrderValidated", "OrderReceived"];

test("events appear as they are recorded, in the rows that a reload shows", async () => {
  const visitor = await openFeed();
  const { page } = visitor;
  const [id] = await system.placeEnded(1, "fulfil");
  await waitFor("the events appear", async () => (await rowsOf(page, id).count()) === ALL.length);
  assert.deepEqual(await typesOf(page, id), ALL);
  const text = await page.locator("[data-feed] tbody").innerText();
  const events = await shownEvents(page);
  assert.equal(new Set(events).size, events.length);
  await visitor.assertAccessible();
  await page.reload();
  assert.equal(await page.locator("[data-feed] tbody").innerText(), text);
  await visitor.leave();
});

test("filter of types is in the address and applies to new events", async () => {
  const visitor = await openFeed();
  const { page } = visitor;
  await page.getByLabel("OrderFulfilled").check();
  await page.getByLabel("OrderFailed").check();
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/types=OrderFulfilled&types=OrderFailed|types=OrderFailed&types=OrderFulfilled/);
  await page.locator("#feed-status", { hasText: "Live" }).waitFor();
  assert.ok(await page.getByLabel("OrderFulfilled").isChecked());
  const [fulfilled] = await system.placeEnded(1, "fulfil");
  const [refused] = await system.placeEnded(1, "refuse");
  await waitFor("the events appear", async () => (await rowsOf(page, refused).count()) > 0);
  assert.deepEqual(await typesOf(page, fulfilled), ["OrderFulfilled"]);
  assert.deepEqual(await typesOf(page, refused), ["OrderFailed"]);
  const types = await page.locator("tr[data-event] td:nth-child(2)").allInnerTexts();
  assert.deepEqual([...new Set(types)].sort(), ["OrderFailed", "OrderFulfilled"]);
  await visitor.leave();
});

test("pause holds new events back, and resume shows them", async () => {
  const visitor = await openFeed();
  const { page } = visitor;
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator("#feed-status", { hasText: "Paused" }).waitFor();
  const before = await shownEvents(page);
  const [id] = await system.placeEnded(1, "fulfil");
  await page.getByText(`${ALL.length} new events`).waitFor();
  assert.deepEqual(await shownEvents(page), before);
  assert.equal(await page.getByRole("button", { name: "Pause" }).getAttribute("aria-pressed"), "true");
  await page.getByRole("button", { name: "Pause" }).click();
  await waitFor("the events appear", async () => (await rowsOf(page, id).count()) === ALL.length);
  assert.equal(await page.locator("#feed-count").innerText(), "");
  await visitor.leave();
});

test("older page shows its events and no text about missing ones", async () => {
  await system.placeEnded(11, "fulfil");
  const visitor = await openFeed();
  const { page } = visitor;
  await page.getByRole("link", { name: "Next page" }).click();
  await page.waitForURL(/cursor=/);
  assert.ok((await page.locator("tbody tr").count()) > 0);
  assert.ok(!(await page.locator(".feed-empty").isVisible()));
  await visitor.leave();
});

test("paused feed counts each event that came while its tab was hidden once", async () => {
  const visitor = await openFeed();
  const { page } = visitor;
  await page.getByRole("button", { name: "Pause" }).click();
  const [first] = await system.placeEnded(1, "fulfil");
  await page.getByText(`${ALL.length} new events`).waitFor();
  await setHidden(page, true);
  const [second] = await system.placeEnded(1, "fulfil");
  await setHidden(page, false);
  await page.getByText(`${2 * ALL.length} new events`).waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await waitFor("the events appear", async () => (await rowsOf(page, second).count()) === ALL.length);
  assert.equal(await rowsOf(page, first).count(), ALL.length);
  const orders = await page.locator("tr[data-event] a.id").evaluateAll((links) => links.map((link) => link.title));
  const expected = [second, first].flatMap((id) => ALL.map(() => id));
  assert.deepEqual(orders.slice(0, expected.length), expected, "the newest events are first");
  await visitor.leave();
});

test("feed of an order has the events of that order only", async () => {
  const [other] = await system.placeEnded(1, "fulfil");
  const [id] = await system.placeEnded(1, "refuse");
  const visitor = await openFeed();
  const { page } = visitor;
  await page.getByRole("textbox", { name: "Order id" }).fill(id);
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(new RegExp(`order_id=${id}`));
  await page.locator("#feed-status", { hasText: "Live" }).waitFor();
  await system.api(`/v1/orders/${id}/redrive`, { method: "POST", body: { reason: "A test", actor: "anna" } });
  await waitFor("the second attempt appears", async () => {
    return (await typesOf(page, id)).filter((type) => type === "OrderFailed").length === 2;
  });
  assert.equal(await rowsOf(page, other).count(), 0);
  assert.ok(await rowsOf(page, id).getByText("anna").isVisible());
  await page.getByRole("link", { name: "Clear" }).click();
  await page.waitForURL(`${system.url}/console/feed`);
  await visitor.leave();
});

test("feed that was hidden shows what a reload shows", async () => {
  const visitor = await openFeed();
  const { page } = visitor;
  await setHidden(page, true);
  // More events than a page has.
  const ids = await system.placeEnded(12, "fulfil");
  await setHidden(page, false);
  await waitFor("the newest order appears", async () => (await rowsOf(page, ids.at(-1)).count()) === ALL.length);
  const events = await shownEvents(page);
  assert.ok(!(await page.getByText("Events were skipped").isVisible()));
  await page.reload();
  assert.deepEqual(await shownEvents(page), events);
  await visitor.leave();
});

test("list keeps a bounded number of rows, also while it is paused", async () => {
  const visitor = await openFeed();
  const { page } = visitor;
  system.warehouse.behaviour = "fulfil";
  const nOrders = MAX_ROWS / ALL.length + 5;
  const place = () => Promise.all(Array.from({ length: nOrders }, () => system.place()));
  await place();
  await waitFor("the list is full", async () => (await shownEvents(page)).length === MAX_ROWS);
  await page.getByRole("button", { name: "Pause" }).click();
  await place();
  // Also the last events of the first orders may come after the pause.
  const count = async () => Number.parseInt(await page.locator("#feed-count").innerText(), 10);
  await waitFor("all events have arrived", async () => (await count()) >= nOrders * ALL.length);
  await page.getByRole("button", { name: "Pause" }).click();
  const [last] = await system.placeEnded(1, "fulfil");
  await waitFor("the newest event appears", async () => (await rowsOf(page, last).count()) === ALL.length);
  assert.equal((await shownEvents(page)).length, MAX_ROWS);
  await visitor.leave();
});
