// The frame: keyboard, colours, search, live figures, and what remains when the connection is lost.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, setHidden, startBrowser } from "./visitor.mjs";

let browser;
let system;

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start()]);
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** `readyState` of streams. */
const [CONNECTING, OPEN, CLOSED] = [0, 1, 2];

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
    await visitor.pressChord("g", key);
    await page.waitForURL(`${system.url}/console/${path}`);
  }
  await page.keyboard.press("?");
  const dialog = page.getByRole("dialog", { name: "Keyboard" });
  await dialog.waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
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

test("streams of hidden tabs leave the connections to other tabs", async () => {
  const visitor = await Visitor.arrive(browser);
  const { context, page } = visitor;
  // A browser opens at most six connections to a server.
  for (let tab = 0; tab < 8; tab += 1) {
    const hidden = await context.newPage();
    await hidden.goto(`${system.url}/console/${tab % 2 ? "feed" : "workers"}`);
    await setHidden(hidden, true);
  }
  await page.goto(`${system.url}/console/orders`, { timeout: 10_000 });
  await page.getByRole("heading", { name: "Orders", level: 1 }).waitFor();
  await visitor.leave();
});

test("hidden page has no stream, and takes the current figures when it is shown again", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console`);
  const before = Number(await tile(page, "Fulfilled").innerText());
  await setHidden(page, true);
  await system.placeEnded(2, "fulfil");
  // A page that was opened meanwhile has the new figure.
  const other = await visitor.context.newPage();
  await other.goto(`${system.url}/console`);
  await waitFor("another page shows the orders", async () => {
    return Number(await tile(other, "Fulfilled").innerText()) === before + 2;
  });
  assert.equal(Number(await tile(page, "Fulfilled").innerText()), before);
  await setHidden(page, false);
  await waitFor("the page shows the orders", async () => {
    return Number(await tile(page, "Fulfilled").innerText()) === before + 2;
  });
  await visitor.leave();
});

for (const path of ["workers", "feed"]) {
  test(`page of ${path} has one stream after a return from the history`, async () => {
    const visitor = await Visitor.arrive(browser);
    const { page } = visitor;
    await page.clock.install();
    await page.addInitScript(() => {
      window.streams = [];
      window.EventSource = class extends EventSource {
        constructor(address) {
          super(address);
          window.streams.push(this);
        }
      };
    });
    const count = (...states) =>
      page.evaluate((wanted) => window.streams.filter((stream) => wanted.includes(stream.readyState)).length, states);
    // The page will try again, because the server has refused the first stream.
    let isRefused = true;
    await page.route(/\/console\/(live\?|feed\/events)/, (route) => {
      return isRefused ? route.fulfill({ status: 503 }) : route.fallback();
    });
    await page.goto(`${system.url}/console/${path}`);
    await waitFor("the stream is refused", async () => await count(CLOSED) === 1);
    isRefused = false;
    await page.evaluate(() => {
      dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
      dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
    });
    await waitFor("the page has a stream", async () => await count(OPEN) === 1);
    await page.clock.fastForward(10_000);
    await page.evaluate(() => fetch(location.href, { method: "HEAD" }));
    assert.equal(await count(CONNECTING, OPEN), 1);
    await visitor.leave();
  });
}

test("shortcuts are switched off and on, and typed text stays", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  const dialog = page.getByRole("dialog", { name: "Keyboard" });
  const control = dialog.getByLabel("Single-key shortcuts");
  const openHelp = () => page.getByRole("button", { name: "Keyboard" }).click();
  await page.goto(`${system.url}/console/workers/pause`);
  await page.getByLabel("Reason").fill("Typed before");
  await openHelp();
  await control.uncheck();
  await dialog.getByText("Saved.").waitFor();
  await visitor.assertAccessible();
  await page.keyboard.press("Escape");
  assert.equal(await page.getByLabel("Reason").inputValue(), "Typed before");
  await page.goto(`${system.url}/console`);
  for (const key of ["?", "/", "g", "o"]) await page.keyboard.press(key);
  assert.ok(!(await dialog.isVisible()));
  assert.notEqual(await page.evaluate(() => document.activeElement.id), "search");
  await openHelp();
  assert.ok(!(await control.isChecked()));
  assert.equal(page.url(), `${system.url}/console`);
  await control.check();
  await dialog.getByText("Saved.").waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  await visitor.pressChord("g", "o");
  await page.waitForURL(`${system.url}/console/orders`);
  await visitor.leave();
});

test("page says that its figures are old if its connection is silent, and recovers", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.clock.install();
  await page.goto(`${system.url}/console`);
  await waitFor("the stream is open", () => page.evaluate(() => document.querySelector("[data-region]") !== null));
  const notice = page.getByText("Connection lost. The figures are not current.");
  await system.whileSilent(async () => {
    await page.clock.fastForward(20_000);
    assert.ok(!(await notice.isVisible()));
    await page.clock.fastForward(30_000);
    await notice.waitFor();
  });
  await waitFor("the figures are current again", async () => !(await notice.isVisible()));
  await visitor.leave();
});

test("first key of a shortcut is forgotten after a second", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.clock.install();
  await page.goto(`${system.url}/console`);
  await page.keyboard.press("g");
  await page.clock.fastForward(1_100);
  await page.keyboard.press("o");
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  assert.equal(page.url(), `${system.url}/console`);
  await visitor.leave();
});
