// Work with the keyboard alone: each stop is visible, and live changes do not move the focus.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

const MAX_STOPS = 60;

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

/** Returns what a visitor can tell of the element that has the focus. */
function describeFocus(page) {
  return page.evaluate(() => {
    const element = document.activeElement;
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    const name = element.labels?.[0]?.textContent ?? element.ariaLabel ?? element.title;
    return {
      texts: [element.textContent.trim(), name, element.title],
      outline: outlineStyle === "none" ? 0 : parseFloat(outlineWidth),
      isInView: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    };
  });
}

/** Presses Tab until the element with this name has the focus. Each stop on the way must be visible. */
async function tabTo(page, name) {
  const stops = [];
  while (stops.length < MAX_STOPS) {
    await page.keyboard.press("Tab");
    const { texts, outline, isInView } = await describeFocus(page);
    stops.push(texts[0] || texts[1]);
    assert.ok(outline >= 2, `the focus on "${stops.at(-1)}" of ${page.url()} has no outline`);
    assert.ok(isInView, `the focus on "${stops.at(-1)}" of ${page.url()} is out of view`);
    if (texts.includes(name)) return;
  }
  assert.fail(`Tab does not reach "${name}" on ${page.url()}: ${stops.join(", ")}`);
}

for (const colorScheme of ["light", "dark"]) {
  test(`order is mended with the keyboard alone in the ${colorScheme} theme`, async () => {
    const visitor = await Visitor.arrive(browser, { colorScheme });
    const { page } = visitor;
    const [id] = await system.placeEnded(1, "fail");
    system.warehouse.behaviour = "fulfil";
    await page.goto(`${system.url}/console/feed`);
    await visitor.pressChord("g", "v");
    await page.waitForURL(`${system.url}/console`);
    await page.locator(".attention").getByRole("link", { name: "Show" }).waitFor();
    await tabTo(page, "Show");
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/console\/dead-letters\?code=/);
    await tabTo(page, `Select order ${id}`);
    await page.keyboard.press("Space");
    assert.ok(await page.getByLabel(`Select order ${id}`).isChecked());
    await tabTo(page, id);
    await page.keyboard.press("Enter");
    await page.waitForURL(`${system.url}/console/orders/${id}`);
    await tabTo(page, "Redrive…");
    await page.keyboard.press("Enter");
    await page.waitForURL(`${system.url}/console/orders/${id}/redrive`);
    await tabTo(page, "Reason");
    await page.keyboard.type("Mended by keyboard");
    // Enter in a field presses the form's button.
    await page.keyboard.press("Enter");
    await page.getByRole("status").filter({ hasText: "The order is queued again" }).waitFor();
    assert.equal((await system.waitUntilEnded(id)).status, "FULFILLED");
    await visitor.leave();
  });
}

test("every stop of the main pages is visible", async () => {
  const visitor = await Visitor.arrive(browser, { viewport: { width: 1024, height: 600 } });
  const { page } = visitor;
  const [id] = await system.placeEnded(1, "fail");
  for (const path of ["", `/orders/${id}`, "/dead-letters", "/workers", "/system"]) {
    await page.goto(`${system.url}/console${path}`);
    await page.keyboard.press("Tab");
    assert.equal((await describeFocus(page)).texts[0], "Skip to content");
    const nStops = await page.locator("main").locator("a[href], button, input, select, [tabindex='0']").count();
    for (let stop = 0; stop < Math.min(nStops, 40); stop += 1) {
      const { texts, outline, isInView } = await describeFocus(page);
      assert.ok(outline >= 2 && isInView, `the focus on "${texts.join("|")}" of ${page.url()} is not visible`);
      await page.keyboard.press("Tab");
    }
  }
  await visitor.leave();
});

test("focus stays on its element when live figures change", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await system.placeEnded(1, "fail");
  await page.goto(`${system.url}/console`);
  const finding = (count) => page.locator(".attention li", { hasText: `${count} dead letter` });
  await finding(1).getByRole("link").focus();
  const focused = () => page.evaluate(() => document.activeElement.getAttribute("href"));
  const address = await focused();
  assert.match(address, /dead-letters\?code=/);
  await system.placeEnded(1, "fail");
  await finding(2).waitFor();
  assert.equal(await focused(), address);
  // A more urgent finding is inserted before the link.
  await system.api("/v1/ops/worker/pause", { method: "POST", body: { reason: "Focus" } });
  await page.locator(".attention li", { hasText: "has paused the workers" }).waitFor();
  assert.equal(await focused(), address);
  // After the removal of its link, the focus must not be on another link.
  await page.locator(".attention li", { hasText: "has paused the workers" }).getByRole("link").focus();
  await system.api("/v1/ops/worker/resume", { method: "POST", body: { reason: "Focus" } });
  await waitFor("the finding is gone", async () => {
    return await page.locator(".attention li", { hasText: "has paused the workers" }).count() === 0;
  });
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await visitor.leave();
});

test("typing in a field is not taken for a command", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/workers/pause`);
  await page.getByLabel("Reason").focus();
  await page.keyboard.type("go /? wd");
  assert.equal(await page.getByLabel("Reason").inputValue(), "go /? wd");
  assert.equal(await page.getByRole("dialog").count(), 0);
  await page.getByRole("heading", { level: 1 }).click();
  await page.keyboard.press("?");
  const dialog = page.getByRole("dialog", { name: "Keyboard" });
  await dialog.waitFor();
  assert.ok(await dialog.evaluate((element) => element.contains(document.activeElement)));
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  await visitor.leave();
});

test("shortcuts work while a checkbox has the focus, and not behind the open help", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/feed`);
  await page.getByRole("button", { name: "Keyboard" }).click();
  await page.getByRole("checkbox", { name: "Single-key shortcuts" }).focus();
  await visitor.pressChord("g", "o");
  assert.ok(await page.getByRole("dialog", { name: "Keyboard" }).isVisible());
  await page.keyboard.press("Escape");
  await page.getByRole("checkbox", { name: "OrderFailed" }).focus();
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "search");
  assert.equal(page.url(), `${system.url}/console/feed`);
  await visitor.leave();
});
