// Workers are paused and resumed; projections show their position and their last verification.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

let browser;
let system;

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start()]);
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

const badge = (scope, text) => scope.locator(".badge", { hasText: text });
const fact = (scope, name) => scope.locator(`dt:text-is("${name}") + dd`);

for (const javaScriptEnabled of [true, false]) {
  const mode = javaScriptEnabled ? "" : " without JavaScript";
  test(`paused workers take no orders until they are resumed${mode}`, async () => {
    const visitor = await Visitor.arrive(browser, { javaScriptEnabled });
    const { page } = visitor;
    system.warehouse.behaviour = "fulfil";
    await page.goto(`${system.url}/console/workers`);
    await badge(fact(page, "State"), "Taking orders").waitFor();
    assert.equal(await page.getByRole("link", { name: "Resume workers…" }).count(), 0);
    await page.getByRole("link", { name: "Pause workers…" }).click();
    await page.getByText("The API still accepts orders.").waitFor();
    await page.getByLabel("Reason").fill("Stocktaking");
    await page.getByLabel("Your name (optional)").fill("Ann");
    await page.getByRole("button", { name: "Pause workers" }).click();
    await page.getByRole("status").filter({ hasText: "Workers paused. No delivery is in flight." }).waitFor();
    await badge(fact(page, "State"), "Paused").waitFor();
    assert.equal(await fact(page, "Reason").innerText(), "Stocktaking");
    await badge(page.getByRole("table", { name: "State of each worker" }), "confirmed").waitFor();

    const ids = [await system.place(), await system.place()];
    await page.goto(`${system.url}/console`);
    const finding = page.locator(".attention li", { hasText: "has paused the workers: Stocktaking." });
    assert.match(await finding.innerText(), /^Ann\b/);
    for (const id of ids) {
      const { body } = await system.api(`/v1/orders/${id}`);
      assert.equal(body.status, "PROCESSING", id);
    }
    await page.goto(`${system.url}/console/orders?status=PROCESSING`);
    await waitFor("the list shows the orders that wait", async () => {
      if (await page.getByTitle(ids[1]).isVisible()) return true;
      await page.reload();
      return false;
    });

    await page.goto(`${system.url}/console`);
    await finding.getByRole("link", { name: "Workers" }).click();
    await page.getByRole("link", { name: "Resume workers…" }).click();
    await page.getByLabel("Reason").fill("Stock is counted");
    await page.getByRole("button", { name: "Resume workers" }).click();
    await page.getByRole("status").filter({ hasText: "Workers resumed." }).waitFor();
    await badge(fact(page, "State"), "Taking orders").waitFor();
    for (const id of ids) assert.equal((await system.waitUntilEnded(id)).status, "FULFILLED");
    await page.goto(`${system.url}/console`);
    assert.equal(await finding.count(), 0);
    await page.goto(`${system.url}/console/actions`);
    for (const reason of ["Stocktaking", "Stock is counted"]) await page.getByText(reason).first().waitFor();
    await visitor.leave();
  });
}

test("pause needs a reason", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/workers/pause`);
  await page.getByLabel("Your name (optional)").fill("Ben");
  await page.getByLabel("Reason").fill(" ");
  await page.getByRole("button", { name: "Pause workers" }).click();
  await page.getByText("Enter a reason.").waitFor();
  assert.equal(await page.getByLabel("Your name (optional)").inputValue(), "Ben");
  assert.equal((await system.api("/v1/ops/worker")).body.paused, false);
  await visitor.leave();
});

test("open page of a second visitor shows the pause", async () => {
  const [first, second] = await Promise.all([Visitor.arrive(browser), Visitor.arrive(browser)]);
  await second.page.goto(`${system.url}/console/workers`);
  await badge(fact(second.page, "State"), "Taking orders").waitFor();
  for (const [control, state] of [["Pause", "Paused"], ["Resume", "Taking orders"]]) {
    await first.page.goto(`${system.url}/console/workers/${control.toLowerCase()}`);
    await first.page.getByLabel("Reason").fill(`${control} by the first visitor`);
    await first.page.getByRole("button", { name: `${control} workers` }).click();
    await badge(fact(second.page, "State"), state).waitFor();
  }
  await first.leave();
  await second.leave();
});

test("worker table shows the state of the worker", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/workers`);
  const workers = page.getByRole("table", { name: "State of each worker" });
  for (const name of ["Last seen", "In flight", "Gateway calls", "Mean / p95 / max"]) {
    await workers.getByRole("columnheader", { name }).waitFor();
  }
  const row = workers.locator("tbody tr");
  await badge(row, "connected").waitFor();
  await badge(row, "closed").waitFor();
  assert.equal(await row.count(), 1);
  await row.getByText(/^(just now|\d+ s ago)$/).first().waitFor();
  await visitor.leave();
});

test("projections show position, lag and the result of a verification", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await system.placeEnded(1, "fulfil");
  await page.goto(`${system.url}/console/projections`);
  const title = page.getByRole("heading", { name: "orders", exact: true });
  const panel = page.locator("section.panel", { has: title }).first();
  await badge(fact(panel, "State"), "up to date").waitFor();
  assert.equal(await fact(panel, "Last verification").innerText(), "never");
  const sets = panel.getByRole("table", { name: "Sets of tables of orders" });
  const position = () => sets.locator("tbody tr").first().locator("td").nth(2).innerText().then(Number);
  const before = await position();
  assert.ok(before > 0);
  await system.placeEnded(1, "fulfil");
  await waitFor("the open page shows the new position", async () => await position() > before);
  await system.run(["projections", "verify"]);
  await badge(fact(panel, "Last verification"), "no differences").waitFor();
  const { body } = await system.api("/v1/ops/projections");
  const { orders } = body.items.find(({ name }) => name === "orders").verification;
  await fact(panel, "Last verification").getByText(`in ${orders} orders`).waitFor();
  await visitor.leave();
});
