// What holds for every page: accessible in both themes, fits narrow screens, works without JavaScript.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

let browser;
let system;
let pages;

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start()]);
  const [fulfilled] = await system.placeEnded(1, "fulfil");
  const [refused] = await system.placeEnded(1, "refuse");
  const [dead] = await system.placeEnded(2, "fail");
  pages = [
    "/console", "/console?window=day", "/console/orders", "/console/orders?status=FAILED",
    `/console/orders/${fulfilled}`, `/console/orders/${refused}`, `/console/orders/${dead}`,
    `/console/orders/${dead}?at=3`, `/console/orders/${dead}?from=0&to=3`, `/console/orders/${dead}/redrive`,
    `/console/orders/${dead}/discard`, "/console/dead-letters", `/console/dead-letters/${dead}`,
    "/console/dead-letters/redrive?stage=dead_letter", `/console/dead-letters/discard?order_id=${dead}`,
    "/console/dead-letters/tasks", "/console/workers", "/console/workers/pause", "/console/projections",
    "/console/feed", "/console/actions", "/console/system", "/console/sign-in",
  ];
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

for (const colorScheme of ["light", "dark"]) {
  test(`every page is accessible in the ${colorScheme} theme`, async () => {
    const visitor = await Visitor.arrive(browser, { colorScheme });
    for (const page of pages) {
      const response = await visitor.page.goto(system.url + page);
      assert.equal(response.status(), 200, page);
      await visitor.assertAccessible();
    }
    await visitor.leave();
  });
}

for (const width of [320, 768, 1440]) {
  test(`every page fits ${width} px`, async () => {
    const visitor = await Visitor.arrive(browser, { viewport: { width, height: 800 } });
    for (const page of pages) {
      await visitor.page.goto(system.url + page);
      await visitor.assertFits();
    }
    await visitor.leave();
  });
}

test("every page shows the same without JavaScript", async () => {
  const visitor = await Visitor.arrive(browser, { javaScriptEnabled: false });
  for (const page of pages) {
    const response = await visitor.page.goto(system.url + page);
    assert.equal(response.status(), 200, page);
    assert.ok((await visitor.page.locator("h1").innerText()).length > 0, page);
    assert.ok(!(await visitor.page.locator(".js-only").first().isVisible()), `${page} shows a dead button`);
  }
  await visitor.leave();
});

test("page has one main heading, a title and landmarks", async () => {
  const visitor = await Visitor.arrive(browser);
  for (const page of pages) {
    await visitor.page.goto(system.url + page);
    assert.equal(await visitor.page.locator("h1").count(), 1, page);
    assert.equal(await visitor.page.getByRole("main").count(), 1, page);
    assert.match(await visitor.page.title(), /. · DOFS$/);
  }
  await visitor.leave();
});
