// The page of an order: its events, its past states, and the forms that mend it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

let browser;
let system;
let key;
let storageState;
let dead;

before(async () => {
  [browser, system] = await Promise.all([startBrowser(), System.start({ DOFS__AUTH__MODE: "api_key" })]);
  const scopes = ["orders:read", "orders:write", "audit:read", "ops:read", "ops:write"];
  key = (await system.createKey("anna", scopes)).token;
  [dead] = await system.placeEnded(1, "fail", { key });
  const visitor = await Visitor.arrive(browser);
  await visitor.signIn(system.url, key);
  await visitor.page.waitForURL(`${system.url}/console`);
  storageState = await visitor.context.storageState();
  await visitor.leave();
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

const signedIn = (options = {}) => Visitor.arrive(browser, { storageState, ...options });
const address = (id, rest = "") => `${system.url}/console/orders/${id}${rest}`;
const heading = (page, text) => page.getByRole("heading", { name: text, exact: true });

/** Waits until the row of the order has reached an attempt's end. */
const ended = (id, attempt) => waitFor(`order ${id} has ended attempt ${attempt}`, async () => {
  const { body } = await system.api(`/v1/orders/${id}`, { key });
  return body.attempt === attempt && body.status !== "PROCESSING" && body;
});

test("timeline shows attempts, deliveries, causes and changes, and the chain is verified", async () => {
  const visitor = await signedIn();
  const { page } = visitor;
  await page.goto(address(dead));
  const timeline = page.locator("#timeline");
  await timeline.getByText("Hash chain verified").waitFor();
  assert.deepEqual(await timeline.locator("h3").allInnerTexts(), ["Acceptance", "Attempt 1"]);
  assert.ok(await timeline.getByRole("list", { name: "Delivery 1" }).isVisible());
  assert.ok(await timeline.getByText("Dead letter: ", { exact: false }).first().isVisible());
  const { body } = await system.api(`/v1/orders/${dead}/history`, { key });
  assert.equal(await timeline.locator(".timeline > li").count(), body.events.length);
  assert.ok(await timeline.getByText(", caused by event").first().isVisible());
  const last = timeline.locator(".timeline > li").last();
  assert.match(await last.locator(".changes").innerText(), /status: PROCESSING →\s+to\s+FAILED/);
  await visitor.leave();
});

test("raw data of an event is shown and copied", async () => {
  const visitor = await signedIn({ permissions: ["clipboard-read", "clipboard-write"] });
  const { page } = visitor;
  await page.goto(address(dead));
  const first = page.locator("#event-0");
  await first.getByText("OrderReceived: data and metadata").click();
  await first.locator("h4").getByRole("button", { name: "Copy" }).first().click();
  await first.getByRole("button", { name: "Copied" }).waitFor();
  const copied = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
  const { body } = await system.api(`/v1/orders/${dead}/history`, { key });
  assert.deepEqual(copied, body.events[0].data);
  await visitor.assertAccessible();
  await visitor.leave();
});

test("copy button has its name again after two clicks", async () => {
  const visitor = await signedIn({ permissions: ["clipboard-read", "clipboard-write"] });
  const { page } = visitor;
  await page.clock.install();
  await page.goto(address(dead));
  const button = page.locator("h1 button");
  await button.click();
  await page.locator("h1").getByText("Copied").waitFor();
  await page.clock.runFor(1000);
  await button.click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), dead);
  await page.clock.runFor(2000);
  assert.equal(await button.innerText(), "Copy");
  await visitor.leave();
});

test("slider shows past states, by keyboard and by mouse", async () => {
  const visitor = await signedIn();
  const { page } = visitor;
  await page.goto(address(dead));
  const slider = page.getByRole("slider");
  const newest = Number(await slider.getAttribute("max"));
  await slider.focus();
  for (const revision of [newest - 1, newest - 2]) {
    await page.keyboard.press("ArrowLeft");
    await heading(page, `State after event ${revision}`).waitFor();
    // The next key press must reach the slider.
    await waitFor("the slider has the focus", () => page.evaluate(() => document.activeElement.id === "at"));
  }
  const box = await slider.boundingBox();
  await page.mouse.click(box.x + 1, box.y + box.height / 2);
  await heading(page, "State after event 0").waitFor();
  assert.match(page.url(), /at=0/);
  assert.match(await page.getByRole("region", { name: "Changed since" }).innerText(), /status\s+PROCESSING\s+FAILED/);
  await page.goBack();
  await heading(page, `State after event ${newest - 2}`).waitFor();
  await page.getByRole("link", { name: "Event after" }).click();
  await heading(page, `State after event ${newest - 1}`).waitFor();
  await visitor.assertAccessible();
  await visitor.leave();
});

test("two revisions are compared, and a wrong one is named", async () => {
  const visitor = await signedIn();
  const { page } = visitor;
  const compare = async (from, to) => {
    await page.getByLabel("From", { exact: true }).fill(from);
    await page.getByLabel("To", { exact: true }).fill(to);
    await page.getByRole("button", { name: "Compare" }).click();
  };
  await page.goto(address(dead));
  await compare("0", "3");
  const table = page.getByRole("region", { name: "Compared states" });
  await table.waitFor();
  assert.deepEqual(await table.locator("thead th").allInnerTexts(), ["Field", "Revision 0", "Revision 3"]);
  assert.match(page.url(), /from=0&to=3/);
  await compare("0", "99");
  await page.locator("#compare .callout").waitFor();
  assert.equal(await page.getByLabel("To", { exact: true }).inputValue(), "99");
  await visitor.leave();
});

test("commands for the terminal name the order and contain no key", async () => {
  const visitor = await signedIn();
  const { page } = visitor;
  for (const rest of ["", "?at=2", "?from=0&to=3", "/redrive", "/discard"]) {
    await page.goto(address(dead, rest));
    assert.ok(!(await page.content()).includes(key), rest);
  }
  await page.goto(address(dead, "?at=2&from=0&to=3"));
  const commands = (await page.locator("#commands").innerText()).split("\n");
  const curl = commands.filter((command) => command.startsWith("curl "));
  for (const command of curl) {
    assert.ok(command.includes('-H "Authorization: Bearer $DOFS_API_KEY"'), command);
    const [, path] = command.match(/"\$DOFS_URL([^"]+)"/);
    assert.equal((await system.api(path, { key })).status, 200, path);
  }
  assert.equal(curl.length, 4);
  assert.ok(commands.includes(`dofs audit compare ${dead} 0 3`));
  await visitor.leave();
});

test("redrive with a correction delivers the corrected order", async () => {
  const visitor = await signedIn();
  const { page } = visitor;
  const [id] = await system.placeEnded(1, "fail", { key });
  await page.goto(address(id));
  await page.getByRole("link", { name: "Redrive…" }).click();
  await page.getByRole("button", { name: "Redrive order" }).waitFor();
  await visitor.assertAccessible();
  await page.getByText("Correct the order first").click();
  await page.getByLabel("Quantity of line 1").fill("many");
  await page.getByLabel("Reason").fill("Wrong product");
  await page.getByRole("button", { name: "Redrive order" }).click();
  await page.locator(".callout[data-kind=error]").waitFor();
  assert.equal(await page.getByLabel("Reason").inputValue(), "Wrong product");
  assert.equal(await page.getByLabel("Quantity of line 1").inputValue(), "many");
  await page.getByLabel("Quantity of line 1").fill("5");
  await page.getByRole("button", { name: "Add a line" }).click();
  await page.getByLabel("Product of line 2").fill("prod-gadget-002");
  await page.getByLabel("Quantity of line 2").fill("1");
  system.warehouse.behaviour = "fulfil";
  await page.getByRole("button", { name: "Redrive order" }).click();
  await page.getByText("The order is queued again: attempt 2.").waitFor();
  await waitFor("the page shows the end", async () => {
    return /Fulfilled/.test(await page.locator("[data-region=status] .badge").innerText());
  });
  const items = [{ product_id: "prod-widget-001", quantity: 5 }, { product_id: "prod-gadget-002", quantity: 1 }];
  assert.deepEqual(system.warehouse.received.at(-1).items, items);
  await page.reload();
  const queued = page.locator("#attempt-2 li", { hasText: "Queued again" });
  assert.match(await queued.innerText(), /Wrong product[\s\S]*by api-key:[\s\S]*prod-gadget-002/);
  await page.goto(address(id, "/redrive"));
  assert.ok(await page.getByText("only a failed order can be redriven").isVisible());
  await visitor.leave();
});

test("slower of two visitors sees what the other changed, and keeps the correction", async () => {
  const [slow, fast] = [await signedIn(), await signedIn()];
  const [id] = await system.placeEnded(1, "fail", { key });
  const open = async ({ page }, reason, quantity) => {
    await page.goto(address(id, "/redrive"));
    await page.getByLabel("Reason").fill(reason);
    await page.getByText("Correct the order first").click();
    await page.getByLabel("Quantity of line 1").fill(quantity);
  };
  const submit = ({ page }) => page.getByRole("button", { name: "Redrive order" }).click();
  await open(slow, "The slow correction", "7");
  await open(fast, "The fast correction", "9");
  await submit(fast);
  await fast.page.getByText("The order is queued again: attempt 2.").waitFor();
  await ended(id, 2);
  await submit(slow);
  await slow.page.getByText("The order has changed since revision").waitFor();
  assert.match(await slow.page.locator(".callout").innerText(), /prod-widget-001 × 2 →\s+to\s+prod-widget-001 × 9/);
  assert.equal(await slow.page.getByLabel("Reason").inputValue(), "The slow correction");
  assert.equal(await slow.page.getByLabel("Quantity of line 1").inputValue(), "7");
  await slow.assertAccessible();
  await submit(slow);
  await slow.page.getByText("The order is queued again: attempt 3.").waitFor();
  await ended(id, 3);
  assert.equal(system.warehouse.received.at(-1).items[0].quantity, 7);
  await slow.leave();
  await fast.leave();
});

test("dead letter is discarded once, with a reason", async () => {
  const [visitor, late] = [await signedIn(), await signedIn()];
  const { page } = visitor;
  const [id] = await system.placeEnded(1, "fail", { key });
  await late.page.goto(address(id, "/discard"));
  await page.goto(address(id));
  await page.getByRole("link", { name: "Discard…" }).click();
  await page.getByLabel("Reason").fill("Paid back");
  await page.getByRole("button", { name: "Discard dead letter" }).click();
  await page.getByText("The dead letter is discarded.").first().waitFor();
  assert.equal(await page.getByRole("link", { name: "Discard…" }).count(), 0);
  assert.ok(await page.getByRole("link", { name: "Redrive…" }).isVisible());
  await late.page.getByLabel("Reason").fill("Also paid back");
  await late.page.getByRole("button", { name: "Discard dead letter" }).click();
  await late.page.getByText("The dead letter is discarded.").first().waitFor();
  const { body } = await system.api(`/v1/orders/${id}/history`, { key });
  const discards = body.events.filter(({ type }) => type === "DeadLetterDiscarded");
  assert.deepEqual(discards.map(({ data }) => data.reason), ["Paid back"]);
  await page.goto(address(id, "/discard"));
  assert.ok(await page.getByText("The dead letter is already discarded.").isVisible());
  await visitor.leave();
  await late.leave();
});
