// An incident mended with the console alone: dead letters of an outage, their redrive and their discard.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

const GROUP = "retries_exhausted";

let browser;
let system;

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start()]);
});

// Each test begins without dead letters.
afterEach(() => system.clearDeadLetters());

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Lets the gateway fail for this many orders, and returns them. */
async function breakOrders(count) {
  system.warehouse.behaviour = "fail";
  const ids = await Promise.all(Array.from({ length: count }, () => system.place()));
  await system.waitForDeadLetters(count);
  return ids;
}

async function assertFulfilled(ids) {
  for (const id of ids) {
    const order = await system.waitUntilEnded(id);
    assert.equal(order.status, "FULFILLED", id);
  }
}

const row = (page, id) => page.locator("tbody tr", { has: page.locator(`input[value="${id}"]`) });
const badge = (scope, text) => scope.locator(".badge", { hasText: text });
const status = (page, text) => page.getByRole("status").filter({ hasText: text }).waitFor();

test("outage of the warehouse is mended in three clicks from the overview", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console`);
  await page.getByText("Nothing needs attention.").waitFor();
  const ids = await breakOrders(30);
  const finding = page.locator(".attention li", { hasText: `30 dead letters with code ${GROUP}` });
  await finding.waitFor();
  system.warehouse.behaviour = "fulfil";

  let nClicks = 0;
  const click = async (locator) => {
    nClicks += 1;
    await locator.click();
  };
  await click(finding.getByRole("link", { name: "Show" }));
  await page.waitForURL(`${system.url}/console/dead-letters?code=${GROUP}`);
  await click(page.getByRole("link", { name: "Redrive all 30 that match…" }));
  await page.getByLabel("Reason").fill("The warehouse is back");
  await click(page.getByRole("button", { name: "Start redrive" }));
  await page.waitForURL(/\/console\/dead-letters\/tasks\/[0-9a-f-]{36}$/);
  assert.ok(nClicks <= 3, `${nClicks} clicks`);

  // The open page shows the end by itself.
  await badge(page, "Succeeded").waitFor();
  await page.getByText("30 of 30 orders").waitFor();
  assert.equal(await page.getByRole("progressbar").count(), 0);
  await assertFulfilled(ids);
  await system.waitForDeadLetters(0);
  await page.getByRole("link", { name: "Failures that remain" }).click();
  await page.getByText("match the filter").first().waitFor();
  await page.goto(`${system.url}/console`);
  await page.getByText("Nothing needs attention.").waitFor();
  await page.goto(`${system.url}/console/actions`);
  await page.getByText("The warehouse is back").first().waitFor();
  await visitor.leave();
});

test("selected orders are redriven and the others stay", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  const ids = await breakOrders(4);
  system.warehouse.behaviour = "fulfil";
  await page.goto(`${system.url}/console/dead-letters`);
  const chosen = ids.slice(0, 2);
  for (const id of chosen) await page.getByLabel(`Select order ${id}`).check();
  await page.getByRole("button", { name: "Redrive selected…" }).click();
  await page.locator("p", { hasText: "2 orders would be queued again, 0 would be skipped." }).waitFor();
  const dryRun = page.getByRole("table", { name: "What the redrive would do with each order" });
  for (const id of chosen) {
    const rowOfOrder = dryRun.getByRole("row").filter({ has: page.getByTitle(id) });
    await badge(rowOfOrder, "Redrive").waitFor();
  }
  assert.equal(await dryRun.locator("tbody tr").count(), 2);
  // A dry run changes nothing.
  assert.equal((await system.api("/v1/dead-letters")).body.total, 4);
  await page.getByLabel("Reason").fill("These first");
  await page.getByRole("button", { name: "Start redrive" }).click();
  await page.getByText("2 of 2 orders").waitFor();
  await assertFulfilled(chosen);
  await system.waitForDeadLetters(2);
  await page.goto(`${system.url}/console/dead-letters`);
  await row(page, ids[3]).waitFor();
  assert.equal(await row(page, chosen[0]).count(), 0);
  await visitor.leave();
});

test("dry run says which order is skipped and why", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  const [stays, changes] = await breakOrders(2);
  system.warehouse.behaviour = "fulfil";
  await page.goto(`${system.url}/console/dead-letters`);
  await page.getByLabel("Select all of this page").check();
  assert.equal(await page.locator("input[name=order_id]:checked").count(), 2);
  // Another operator is faster with one of them.
  const request = { method: "POST", body: { reason: "By hand" } };
  assert.equal((await system.api(`/v1/orders/${changes}/redrive`, request)).status, 202);
  await system.waitUntilEnded(changes);
  await page.getByRole("button", { name: "Redrive selected…" }).click();
  await page.locator("p", { hasText: "1 order would be queued again, 1 would be skipped." }).waitFor();
  const dryRun = page.getByRole("table", { name: "What the redrive would do with each order" });
  const rowOf = (id) => dryRun.getByRole("row").filter({ has: page.getByTitle(id) });
  await badge(rowOf(stays), "Redrive").waitFor();
  await badge(rowOf(changes), "Skip").waitFor();
  await visitor.leave();
});

test("open list tells new failures and keeps its rows and the selection", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  const [first] = await breakOrders(1);
  await page.goto(`${system.url}/console/dead-letters`);
  await page.getByLabel(`Select order ${first}`).check();
  await system.placeEnded(2, "fail");
  await status(page, "2 new failures");
  assert.equal(await page.locator("input[name=order_id]").count(), 1);
  assert.ok(await page.getByLabel(`Select order ${first}`).isChecked());
  await page.getByRole("link", { name: "Show", exact: true }).click();
  await waitFor("three rows", async () => await page.locator("input[name=order_id]").count() === 3);
  await visitor.leave();
});

test("slow redrive shows its progress and is cancelled", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await breakOrders(10);
  system.warehouse.behaviour = "fulfil";
  await page.goto(`${system.url}/console/dead-letters/redrive`);
  await page.getByLabel("Reason").fill("Slowly");
  await page.getByLabel("Orders per second").fill("1");
  await page.getByRole("button", { name: "Start redrive" }).click();
  const progress = page.getByRole("progressbar", { name: "Progress of the redrive" });
  const done = async () => Number(await progress.getAttribute("value"));
  const begin = await done();
  await waitFor("the open page shows progress", async () => await done() > begin);
  // The list leads to the task that runs.
  await page.goto(`${system.url}/console/dead-letters`);
  await page.getByRole("link", { name: "Show its progress" }).click();
  await page.getByRole("link", { name: "Cancel redrive…" }).click();
  await page.getByText("Orders that were redriven stay redriven. The others stay failed.").waitFor();
  await page.getByRole("button", { name: "Cancel redrive" }).click();
  await status(page, "Redrive cancelled.");
  await badge(page, "Cancelled").waitFor();
  assert.equal(await page.getByRole("link", { name: "Cancel redrive…" }).count(), 0);
  const { total } = (await system.api("/v1/dead-letters")).body;
  assert.ok(total > 0 && total < 10, `${total} dead letters remain`);
  await visitor.leave();
});

test("discard needs a reason and resolves the dead letter", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  const [id] = await breakOrders(2);
  await page.goto(`${system.url}/console/dead-letters`);
  await page.getByLabel(`Select order ${id}`).check();
  await page.getByRole("button", { name: "Discard selected…" }).click();
  await page.locator("p", { hasText: "1 dead letter will be discarded" }).waitFor();
  // The browser refuses an empty field, the server a blank one.
  await page.getByRole("button", { name: "Discard", exact: true }).click();
  assert.ok(await page.getByLabel("Reason").evaluate((field) => field.validity.valueMissing));
  await page.getByLabel("Reason").fill("   ");
  await page.getByRole("button", { name: "Discard", exact: true }).click();
  await page.getByText("Enter a reason.").waitFor();
  await page.getByLabel("Reason").fill("The customer has cancelled");
  await page.getByRole("button", { name: "Discard", exact: true }).click();
  await status(page, "1 discarded.");
  await system.waitForDeadLetters(1);
  await page.goto(`${system.url}/console/dead-letters?resolved=true`);
  const resolved = page.locator("tbody tr", { has: page.getByTitle(id) }).first();
  await resolved.locator("time").nth(1).waitFor();
  await page.goto(`${system.url}/console/orders/${id}`);
  await page.getByText("The dead letter is discarded.").waitFor();
  await page.getByText("The customer has cancelled").first().waitFor();
  await visitor.leave();
});

test("incident is mended without JavaScript", async () => {
  const visitor = await Visitor.arrive(browser, { javaScriptEnabled: false });
  const { page } = visitor;
  const ids = await breakOrders(5);
  system.warehouse.behaviour = "fulfil";
  await page.goto(`${system.url}/console`);
  await page.locator(".attention li", { hasText: "5 dead letters" }).getByRole("link").click();
  await page.getByLabel(`Select order ${ids[0]}`).check();
  await page.getByRole("button", { name: "Discard selected…" }).click();
  await page.getByLabel("Reason").fill("Not wanted any more");
  await page.getByRole("button", { name: "Discard", exact: true }).click();
  await status(page, "1 discarded.");
  await system.waitForDeadLetters(4);
  await page.reload();
  await page.getByRole("link", { name: "Redrive all 4 that match…" }).click();
  await page.getByLabel("Reason").fill("Back");
  await page.getByRole("button", { name: "Start redrive" }).click();
  await waitFor("a reload shows the end", async () => {
    await page.reload();
    return page.getByText("4 of 4 orders").isVisible();
  });
  await assertFulfilled(ids.slice(1));
  await system.waitForDeadLetters(0);
  await visitor.leave();
});
