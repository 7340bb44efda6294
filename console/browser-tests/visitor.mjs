// A visitor in a real browser, whose every page is checked: requests to this machine only, no violation
// of the content security policy, no error of a script.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

/** Starts a browser without its own connections to the network. */
export function startBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
}

/** Hides or shows a page as a change of tabs does. Browsers without a window treat all tabs as visible. */
export function setHidden(page, isHidden) {
  return page.evaluate((value) => {
    Object.defineProperty(document, "hidden", { value, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, isHidden);
}

/** A visitor with cookies of its own. */
export class Visitor {
  /** Options are those of a browser context: `javaScriptEnabled`, `colorScheme`, `viewport`. */
  static async arrive(browser, options = {}) {
    const visitor = new Visitor();
    visitor.problems = [];
    visitor.context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
    await visitor.context.route("**/*", (route) => {
      const { hostname } = new URL(route.request().url());
      if (hostname === "127.0.0.1") return route.continue();
      visitor.problems.push(`request to ${route.request().url()}`);
      return route.abort();
    });
    if (options.javaScriptEnabled !== false) {
      await visitor.context.exposeFunction("noteViolation", (text) => visitor.problems.push(text));
      await visitor.context.addInitScript(() => {
        document.addEventListener("securitypolicyviolation", (event) => {
          window.noteViolation(`${event.violatedDirective} blocked ${event.blockedURI}`);
        });
      });
    }
    visitor.page = await visitor.context.newPage();
    visitor.page.on("dialog", (dialog) => {
      visitor.problems.push(`dialog: ${dialog.message()}`);
      return dialog.dismiss();
    });
    visitor.page.on("pageerror", (error) => visitor.problems.push(`script error: ${error.message}`));
    return visitor;
  }

  /** Ends the visit and reports what a page must not do. */
  async leave() {
    await this.context.close();
    assert.deepEqual(this.problems, []);
  }

  /** Signs in with an API key. */
  async signIn(url, key) {
    await this.page.goto(`${url}/console/sign-in`);
    await this.page.getByLabel("API key").fill(key);
    await this.page.getByRole("button", { name: "Sign in" }).click();
  }

  /** Presses two keys at once: the page forgets the first one after a second. */
  async pressChord(first, second) {
    await Promise.all([this.page.keyboard.press(first), this.page.keyboard.press(second)]);
  }

  /** Checks the page that is open against the rules of axe-core. */
  async assertAccessible() {
    await this.page.evaluate(AXE);
    const run = (tags) => window.axe.run(document, { runOnly: tags });
    const { violations } = await this.page.evaluate(run, AXE_TAGS);
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`);
    assert.deepEqual(found, [], `accessibility of ${this.page.url()}`);
  }

  /** Checks that the page needs no sideways scroll. */
  async assertFits() {
    const excess = () => document.documentElement.scrollWidth - window.innerWidth;
    const width = await this.page.evaluate(excess);
    assert.ok(width <= 0, `${this.page.url()} is ${width} px too wide`);
  }
}
