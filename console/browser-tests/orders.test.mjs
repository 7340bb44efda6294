// The list of orders: filters, search, pages, news; and the live status of an order.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

const N_ORDERS = 120;
const N_OF_PAGE = 50;
const UUID_CUSTOMER = "6f1c1f5e-8d0b-4a52-9c3f-2d7e5b8f9a43";

let browser;
let system;
let refused;
let ofUuidCustomer;

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start()]);
  [refused] = await system.placeEnded(1, "refuse", { customer: "cust-refused-1" });
  [ofUuidCustomer] = await system.placeEnded(1, "fulfil", { customer: UUID_CUSTOMER });
  const ids = await Promise.all(Array.from({ length: N_ORDERS - 2 }, () => system.place()));
  for (const id of ids) await system.waitUntilEnded(id);
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Returns the ids of the shown orders, in the order of the rows. */
const shownIds = (page) => page.locator("tbody th a.id").evaluateAll((links) => links.map((link) => link.title));

test("filters are in the address, and the address restores them", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/orders`);
  await page.getByLabel("Status").selectOption("FAILED");
  await page.getByLabel("Customer id").fill("cust-refused-1");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/status=FAILED/);
  assert.deepEqual(await shownIds(page), [refused]);
  const address = page.url();
  await page.getByRole("link", { name: "Clear" }).click();
  await page.waitForURL(`${system.url}/console/orders`);
  assert.equal((await shownIds(page)).length, N_OF_PAGE);
  const friend = await Visitor.arrive(browser);
  await friend.page.goto(address);
  assert.deepEqual(await shownIds(friend.page), [refused]);
  assert.equal(await friend.page.getByLabel("Status").inputValue(), "FAILED");
  assert.equal(await friend.page.getByLabel("Customer id").inputValue(), "cust-refused-1");
  await friend.leave();
  await visitor.leave();
});

test("filter by time keeps its bound and excludes what came before", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/orders`);
  await page.getByLabel("Received from (UTC)").fill("2099-01-02T03:04:05");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.getByText("No order matches").waitFor();
  assert.equal(await page.getByLabel("Received from (UTC)").inputValue(), "2099-01-02T03:04:05");
  await visitor.assertAccessible();
  await page.goto(`${system.url}/console/orders?to=2099-01-01T00:00:00Z`);
  assert.equal((await shownIds(page)).length, N_OF_PAGE);
  const refusal = await page.goto(`${system.url}/console/orders?from=tomorrow`);
  assert.equal(refusal.status(), 400);
  assert.ok(await page.getByText("Invalid from `tomorrow`.").isVisible());
  await visitor.leave();
});

test("search leads to an order by its id, and to the orders of a customer", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  const search = async (text) => {
    await page.goto(`${system.url}/console`);
    await page.getByRole("searchbox").fill(text);
    await page.keyboard.press("Enter");
  };
  await search(` ${refused} `);
  await page.waitForURL(`${system.url}/console/orders/${refused}`);
  await search("cust-refused-1");
  await page.waitForURL(/customer=cust-refused-1/);
  assert.deepEqual(await shownIds(page), [refused]);
  assert.ok(await page.getByRole("heading", { name: "Customer cust-refused-1" }).isVisible());
  await search("cust of nobody & co");
  await page.getByText("No order matches the customer cust of nobody & co.").waitFor();
  await search("00000000-0000-7000-8000-000000000000");
  await page.waitForURL(/00000000-0000-7000-8000-000000000000/);
  await page.getByRole("heading", { name: "Order not found" }).waitFor();
  await visitor.assertAccessible();
  await search(UUID_CUSTOMER);
  await page.getByRole("heading", { name: `Customer ${UUID_CUSTOMER}` }).waitFor();
  assert.deepEqual(await shownIds(page), [ofUuidCustomer]);
  await visitor.leave();
});

test("pages have each order once, and back and forward return to them", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/orders`);
  const pages = [await shownIds(page)];
  const addresses = [page.url()];
  const next = page.getByRole("link", { name: "Next page" });
  while (await next.isVisible()) {
    await next.click();
    await page.waitForURL((url) => url.href !== addresses.at(-1));
    pages.push(await shownIds(page));
    addresses.push(page.url());
  }
  assert.deepEqual(pages.map((ids) => ids.length), [N_OF_PAGE, N_OF_PAGE, N_ORDERS - 2 * N_OF_PAGE]);
  assert.equal(new Set(pages.flat()).size, N_ORDERS);
  for (const index of [1, 0]) {
    await page.goBack();
    assert.equal(page.url(), addresses[index]);
    assert.deepEqual(await shownIds(page), pages[index]);
  }
  await page.goForward();
  assert.deepEqual(await shownIds(page), pages[1]);
  await page.getByRole("link", { name: "First page" }).click();
  await page.waitForURL(addresses[0]);
  assert.deepEqual(await shownIds(page), pages[0]);
  await visitor.leave();
});

test("new orders are counted above the list, and the rows stay where they are", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/orders?customer=cust-retail-001`);
  const ids = await shownIds(page);
  const place = () => page.locator("tbody tr").first().evaluate((row) => row.getBoundingClientRect().top);
  const top = await place();
  const added = await system.placeEnded(2, "fulfil");
  await system.placeEnded(1, "fulfil", { customer: "cust-other-1" });
  const news = page.getByRole("link", { name: "2 new orders: reload" });
  await news.waitFor();
  assert.deepEqual(await shownIds(page), ids);
  assert.equal(await place(), top);
  await news.click();
  await waitFor("the list shows the new orders", async () => (await shownIds(page))[0] === added[1]);
  assert.deepEqual((await shownIds(page)).slice(0, 3), [added[1], added[0], ids[0]]);
  await visitor.leave();
});

test("open order page follows the order to its end without a reload", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await system.api("/v1/ops/worker/pause", { method: "POST", body: { reason: "A test" } });
  const id = await system.place();
  await page.goto(`${system.url}/console/orders/${id}`);
  const status = page.locator("[data-region=status] .badge");
  assert.match(await status.innerText(), /Processing/);
  await page.evaluate(() => { window.isSamePage = true; });
  await system.api("/v1/ops/worker/resume", { method: "POST", body: { reason: "A test" } });
  await waitFor("the page shows the end", async () => /Fulfilled/.test(await status.innerText()));
  const news = page.getByRole("link", { name: /^1 new event: reload/ });
  await news.waitFor();
  assert.ok(await page.evaluate(() => window.isSamePage), "the page was loaded again");
  await news.click();
  await page.locator("#timeline .timeline").getByText("Fulfilled", { exact: false }).first().waitFor();
  await visitor.leave();
});
