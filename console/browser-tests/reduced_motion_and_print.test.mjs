// What the visitor's system asks for: no motion, and paper.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

let browser;
let system;
let order;

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start()]);
  [order] = await system.placeEnded(1, "fail");
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

test("nothing moves for visitors who do not want motion", async () => {
  const visitor = await Visitor.arrive(browser, { reducedMotion: "reduce" });
  for (const path of ["", "/dead-letters", `/orders/${order}`]) {
    await visitor.page.goto(`${system.url}/console${path}`);
    const moving = await visitor.page.evaluate(() => {
      const isMoving = (element) => {
        const { transitionDuration, animationName, scrollBehavior } = getComputedStyle(element);
        return transitionDuration !== "0s" || animationName !== "none" || scrollBehavior === "smooth";
      };
      return [...document.querySelectorAll("*")].filter(isMoving).map((element) => element.outerHTML);
    });
    assert.deepEqual(moving, [], path);
  }
  await visitor.leave();
});

test("paper has the content and no controls", async () => {
  const visitor = await Visitor.arrive(browser, { colorScheme: "dark" });
  const { page } = visitor;
  for (const path of ["", "/dead-letters", `/orders/${order}`]) {
    await page.goto(`${system.url}/console${path}`);
    await page.emulateMedia({ media: "print" });
    for (const control of ["nav", ".search", ".theme", ".actions", ".filters", ".skip", "[data-copy]"]) {
      for (const element of await page.locator(control).all()) {
        assert.ok(!(await element.isVisible()), `${control} of ${path} is printed`);
      }
    }
    assert.ok(await page.locator("h1").isVisible());
    // Browsers do not print the dark ground, so light text would be invisible on paper.
    const color = await page.evaluate(() => getComputedStyle(document.body).color);
    assert.equal(color, "rgb(27, 32, 41)", path);
    await page.emulateMedia({ media: "screen" });
  }
  await visitor.leave();
});
