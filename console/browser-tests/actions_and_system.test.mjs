// What operators do by the console is recorded with actor and reason; no page shows a secret.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

const GATEWAY_PASSWORD = "gateway-pa55word";
const SESSION_SECRET = "session-secret-of-forty-characters-in-all";

let browser;
let system;
let key;
let actor;
let visitor;
let dead;

before(async () => {
  [browser, system] = await Promise.all([
    startBrowser(),
    System.start({
      DOFS__AUTH__MODE: "api_key",
      DOFS__CONSOLE__SESSION_SECRET: SESSION_SECRET,
      // Nothing listens on this port: each delivery fails, and its error names the address.
      DOFS__FULFILLMENT__URL: `http://robot:${GATEWAY_PASSWORD}@127.0.0.1:9/orders`,
    }),
  ]);
  const scopes = ["orders:read", "orders:write", "audit:read", "ops:read", "ops:write"];
  key = (await system.createKey("anna", scopes)).token;
  actor = (await system.api("/v1/principal", { key })).body.actor;
  dead = await system.placeEnded(5, "fail", { key });
  visitor = await Visitor.arrive(browser);
  await visitor.signIn(system.url, key);
  await visitor.page.waitForURL(`${system.url}/console`);
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Opens a page, fills its form and submits it; waits for the answer. */
async function submit(path, fields, button, answer) {
  const { page } = visitor;
  await page.goto(system.url + path);
  for (const [label, value] of Object.entries(fields)) await page.getByLabel(label).fill(value);
  await page.getByRole("main").getByRole("button", { name: button }).click();
  await page.getByText(answer).first().waitFor();
}

/** Returns action, actor, reason and subject of each row. */
async function shownActions() {
  const rows = await visitor.page.locator("tbody tr").all();
  const texts = await Promise.all(rows.map((row) => row.locator("td").allInnerTexts()));
  return texts.map(([, ...cells]) => cells.slice(0, 3));
}

test("each action is recorded with actor and reason", async () => {
  const { page } = visitor;
  const [discarded, redriven] = dead;
  const order = (id, action) => `/console/orders/${id}/${action}`;
  const because = (Reason) => ({ Reason });
  await submit("/console/workers/pause", because("Gateway is away"), "Pause workers", /^Workers paused\./);
  await submit(order(discarded, "discard"), because("Paid back"), "Discard dead letter", "letter is discarded.");
  await submit(order(redriven, "redrive"), because("Customer called"), "Redrive order", "queued again: attempt 2.");
  // Slow enough to be cancelled before its end.
  const fields = { ...because("Gateway is back"), "Orders per second": "1" };
  await submit("/console/dead-letters/redrive?stage=dead_letter", fields, "Start redrive", "Redrive started.");
  await page.getByRole("link", { name: "Cancel redrive…" }).click();
  await page.getByRole("button", { name: "Cancel redrive" }).click();
  await page.getByText("Redrive cancelled.", { exact: false }).first().waitFor();
  await submit("/console/workers/resume", because("Gateway answers"), "Resume workers", "Workers resumed.");
  // The name of the key, and what the history records.
  const actorCell = `anna\n${actor}`;
  const recorded = [
    ["Workers resumed", actorCell, "Gateway answers"],
    ["Redrive cancelled", actorCell, "–"],
    ["Redrive started", actorCell, "Gateway is back"],
    ["Order redriven", actorCell, "Customer called"],
    ["Dead letter discarded", actorCell, "Paid back"],
    ["Workers paused", actorCell, "Gateway is away"],
  ];
  await waitFor("the actions are listed", async () => {
    await page.goto(`${system.url}/console/actions?actor=${encodeURIComponent(actor)}`);
    return (await shownActions()).length >= recorded.length;
  });
  // The redrive task redrives some orders before it is cancelled.
  const isOfTask = ([name, , reason]) => name === "Order redriven" && reason === "Gateway is back";
  assert.deepEqual((await shownActions()).filter((action) => !isOfTask(action)), recorded);
  await page.getByLabel("Action", { exact: true }).selectOption({ label: "Dead letter discarded" });
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/kind=/);
  assert.deepEqual(await shownActions(), [["Dead letter discarded", actorCell, "Paid back"]]);
  assert.equal(await page.locator("tbody a.id").getAttribute("title"), discarded);
});

test("action without a reason changes nothing", async () => {
  const { page } = visitor;
  for (const path of ["workers/pause", `orders/${dead[2]}/redrive`, `orders/${dead[2]}/discard`]) {
    await page.goto(`${system.url}/console/${path}`);
    const field = page.getByLabel("Reason");
    // The browser itself refuses an empty field, the server one with blanks only.
    assert.equal(await field.getAttribute("required"), "", path);
    await field.fill("   ");
    await page.getByRole("main").locator("button[type=submit]").last().click();
    await page.locator(".callout[data-kind=error]").waitFor();
  }
  assert.equal((await system.api("/v1/ops/worker", { key })).body.paused, false);
  const { body } = await system.api(`/v1/orders/${dead[2]}`, { key });
  assert.equal(body.status, "FAILED");
});

test("no page contains a secret", async () => {
  const { page } = visitor;
  const cookies = await visitor.context.cookies();
  const session = cookies.map(({ value }) => value).filter((value) => value.length > 20);
  assert.equal(session.length, 1);
  const secrets = [GATEWAY_PASSWORD, SESSION_SECRET, key, ...session];
  const paths = [
    "", "/orders", `/orders/${dead[2]}`, `/orders/${dead[2]}/redrive`, "/dead-letters", `/dead-letters/${dead[2]}`,
    "/dead-letters/redrive?stage=dead_letter", "/dead-letters/tasks", "/workers", "/projections",
    "/feed", "/actions", "/system",
  ];
  for (const path of paths) {
    await page.goto(`${system.url}/console${path}`);
    const content = await page.content();
    assert.deepEqual(secrets.filter((secret) => content.includes(secret)), [], path);
  }
});

test("system page shows settings, keys and permissions", async () => {
  const { page } = visitor;
  await page.goto(`${system.url}/console/system`);
  const value = (name) => page.getByRole("row", { name: new RegExp(`^${name} `) });
  assert.match(await value("fulfillment.url").innerText(), /127\.0\.0\.1:9/);
  assert.match(await value("fulfillment.max_retries").innerText(), /1/);
  const keyRow = await page.getByRole("region", { name: "API keys, newest first" }).locator("tbody tr").innerText();
  assert.match(keyRow, /anna[\s\S]*valid[\s\S]*ops:write/);
  await visitor.assertAccessible();
  await visitor.leave();
});
