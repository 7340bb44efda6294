// The pages as a screen reader tells them: headings, names, states and charts in words.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

const ICONS = /[✓✕◔↑↓→]/;

let browser;
let system;
let visitor;
let page;
const orders = {};

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start()]);
  [orders.fulfilled] = await system.placeEnded(1, "fulfil");
  [orders.dead] = await system.placeEnded(1, "fail");
  visitor = await Visitor.arrive(browser);
  page = visitor.page;
});

after(async () => {
  await visitor?.leave();
  await browser?.close();
  await system?.stop();
});

/** Opens a page and returns its accessibility tree as text. */
async function read(path) {
  await page.goto(`${system.url}/console${path}`);
  return page.locator("body").ariaSnapshot();
}

/** Checks what holds for every page. */
async function assertReadable(tree) {
  assert.doesNotMatch(tree, ICONS, "an icon is read aloud");
  const levels = [...tree.matchAll(/heading .*\[level=(\d)\]/g)].map(([, level]) => Number(level));
  assert.equal(levels[0], 1, tree);
  levels.forEach((level, index) => {
    assert.ok(index === 0 || level <= levels[index - 1] + 1, `heading of level ${level} after ${levels[index - 1]}`);
  });
  // Roles without a name are followed by their content or by nothing.
  for (const role of ["table", "textbox", "combobox", "checkbox", "progressbar", "img", "link", "button", "region"]) {
    assert.doesNotMatch(tree, new RegExp(`- ${role}(:| \\[|$)`, "m"), `a ${role} has no name`);
  }
  for (const landmark of ["banner", 'navigation "Pages"', "search", "main"]) {
    assert.ok(tree.includes(`- ${landmark}:`), `${landmark} is missing`);
  }
}

test("overview tells its state and its charts", async () => {
  const tree = await read("");
  await assertReadable(tree);
  assert.match(tree, /heading "Needs attention"/);
  assert.match(tree, /1 dead letter with code retries_exhausted/);
  assert.equal(await page.locator("nav a[aria-current=page]").innerText(), "Overview");
  const titles = ["Orders per minute", "Success rate", "Time from receipt to outcome"];
  for (const title of titles) {
    const chart = page.getByRole("img", { name: new RegExp(`^${title}\\. Newest values: `) });
    assert.match(await chart.getAttribute("aria-label"), /: [\d–n]/);
    const figure = page.getByRole("figure").filter({ has: chart });
    await figure.getByText("Values", { exact: true }).click();
    // Rates and times have no values until the first minute with orders is over.
    await figure.getByRole("rowheader").first().or(figure.getByText("No values.")).waitFor();
    if (title !== titles[0]) continue;
    const values = figure.getByRole("table", { name: title });
    await values.getByRole("columnheader", { name: "Time (UTC)" }).waitFor();
    await values.getByRole("rowheader").first().waitFor();
  }
});

test("order tells its status and its events in words", async () => {
  for (const [id, status] of [[orders.fulfilled, "Fulfilled"], [orders.dead, "Failed"]]) {
    const tree = await read(`/orders/${id}`);
    await assertReadable(tree);
    assert.match(tree, new RegExp(`heading "Order ${id}`));
    assert.match(tree, new RegExp(status));
    await page.getByRole("table", { name: "Items" }).first().getByRole("columnheader").first().waitFor();
    assert.match(tree, /heading "Timeline" \[level=2\]/);
  }
});

test("dead letters tell their table, their fields and the news", async () => {
  const tree = await read("/dead-letters");
  await assertReadable(tree);
  const failures = page.getByRole("table", { name: "Failed orders, newest first" });
  for (const column of ["Select", "Order", "Customer", "Code", "Error", "Attempt", "Failed"]) {
    await failures.getByRole("columnheader", { name: column, exact: true }).waitFor();
  }
  await page.getByRole("checkbox", { name: `Select order ${orders.dead}` }).waitFor();
  const causes = page.getByRole("table", { name: "Failures by code" });
  await causes.getByRole("rowheader", { name: "retries_exhausted" }).waitFor();
  assert.match(await causes.ariaSnapshot(), /More: ?1/);
  // A status must exist before its text changes, or a screen reader does not tell the change.
  await system.placeEnded(1, "fail");
  await page.getByRole("status").filter({ hasText: "1 new failure" }).waitFor();
});

test("forms tell what they ask for and what was refused", async () => {
  await read(`/orders/${orders.dead}/redrive`);
  await assertReadable(await page.locator("body").ariaSnapshot());
  const reason = page.getByRole("textbox", { name: "Reason" });
  assert.ok(await reason.evaluate((field) => field.required));
  await reason.fill(" ");
  await reason.press("Enter");
  await page.getByText("Enter a reason.").waitFor();
  await assertReadable(await page.locator("body").ariaSnapshot());
});

test("other pages have names for all they show", async () => {
  const paths = ["/orders", "/workers", "/workers/pause", "/projections", "/feed", "/actions", "/system",
    "/dead-letters/redrive", "/dead-letters/tasks", `/dead-letters/${orders.dead}`];
  for (const path of paths) await assertReadable(await read(path));
});
