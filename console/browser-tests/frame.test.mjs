// The frame: keyboard, colours, search, live figures, and what remains when the connection is lost.

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

const tile = (page, name) => page.locator(".tile", { has: page.getByText(name, { exact: true }) }).locator("dd").first();

test("root address leads browsers to the console", async () => {
  const visitor = await Visitor.arrive(browser);
  await visitor.page.goto(system.url);
  assert.equal(visitor.page.url(), `${system.url}/console`);
  await visitor.leave();
});

test("keys lead to the pages and to the search", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console`);
  for (const [key, path] of [["o", "orders"], ["d", "dead-letters"], ["w", "workers"], ["p", "projections"]]) {
    await page.keyboard.press("g");
    await page.keyboard.press(key);
    await page.waitForURL(`${system.url}/console/${path}`);
  }
  await page.keyboard.press("?");
  assert.ok(await page.getByRole("dialog", { name: "Keyboard" }).isVisible());
  await page.keyboard.press("Escape");
  await page.keyboard.press("/");
  await page.keyboard.type("cust-of-nobody");
  await page.keyboard.press("Enter");
  await page.waitForURL(/q=cust-of-nobody|customer=cust-of-nobody/);
  await visitor.leave();
});

test("first stop of the tab key skips the navigation", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console`);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await visitor.leave();
});

test("chosen colours outlast the page and win over the system's", async () => {
  const visitor = await Visitor.arrive(browser, { colorScheme: "light" });
  const { page } = visitor;
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.goto(`${system.url}/console`);
  const light = await ground();
  await page.getByRole("button", { name: "dark" }).click();
  await page.goto(`${system.url}/console/orders`);
  assert.notEqual(await ground(), light);
  await page.emulateMedia({ colorScheme: "dark" });
  await page.getByRole("button", { name: "light" }).click();
  await waitFor("the page is light", async () => (await ground()) === light);
  await visitor.leave();
});

test("figures of an open page move without a reload and without a layout shift", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console`);
  await page.evaluate(() => {
    window.shift = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) window.shift += entry.value;
    }).observe({ type: "layout-shift", buffered: false });
    window.isSamePage = true;
  });
  const before = Number(await tile(page, "Fulfilled").innerText());
  await system.placeEnded(3, "fulfil");
  await waitFor("the tile shows the new orders", async () => {
    return Number(await tile(page, "Fulfilled").innerText()) === before + 3;
  });
  assert.ok(await page.evaluate(() => window.isSamePage), "the page was loaded again");
  assert.ok((await page.evaluate(() => window.shift)) < 0.01, "the layout has shifted");
  await visitor.leave();
});

test("page says that its figures are old while the server is away, and recovers", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console`);
  await tile(page, "Fulfilled").waitFor();
  const notice = page.getByText("Connection lost. The figures are not current.");
  assert.ok(!(await notice.isVisible()));
  await system.crashAndRestart(async () => {
    await waitFor("the page says so", () => notice.isVisible());
  });
  await waitFor("the page is current again", async () => !(await notice.isVisible()));
  await visitor.leave();
});
