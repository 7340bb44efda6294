// Sessions: what each key sees and may do, sign-in and sign-out, and requests that no visitor has sent.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { System, waitFor } from "./system.mjs";
import { Visitor, startBrowser } from "./visitor.mjs";

const ALL = ["orders:read", "orders:write", "audit:read", "ops:read", "ops:write"];
const READ = ["orders:read", "audit:read", "ops:read"];
const SHOP = ["orders:read", "orders:write"];
const OPERATOR_PAGES = ["dead-letters", "workers", "projections", "actions", "system"];

let browser;
let system;
/** For each key: its id and token, and the cookies of its session. */
const keys = {};
/** An order of each shop; each is a dead letter. */
const orders = {};

before(async () => {
  const environment = {
    DOFS__AUTH__MODE: "api_key",
    DOFS__CONSOLE__SESSION_SECRET: "0123456789abcdef0123456789abcdef",
  };
  [browser, system] = await Promise.all([startBrowser(), System.start(environment)]);
  const kinds = [["operator", ALL], ["reader", READ], ["alpha", SHOP, "alpha"], ["beta", SHOP, "beta"]];
  for (const [name, scopes, tenant] of kinds) {
    keys[name] = await createKey(name, scopes, tenant);
    const visitor = await Visitor.arrive(browser);
    await visitor.signIn(system.url, keys[name].token);
    await visitor.page.getByRole("button", { name: "Sign out" }).waitFor();
    keys[name].storageState = await visitor.context.storageState();
    await visitor.leave();
  }
  for (const shop of ["alpha", "beta"]) {
    [orders[shop]] = await system.placeEnded(1, "fail", { key: keys[shop].token, customer: `cust-${shop}-001` });
  }
});

after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Creates a key and waits until the API accepts it. */
async function createKey(name, scopes, tenant) {
  const key = await system.createKey(name, scopes, tenant);
  await waitFor(`the API accepts the key ${name}`, async () => {
    return (await system.api("/v1/principal", { key: key.token })).status === 200;
  });
  return key;
}

/** Arrives with the session that the key has opened. */
const arriveAs = (name) => Visitor.arrive(browser, { storageState: keys[name].storageState });

/** Returns the header with the cookies of a visitor. */
async function cookieHeader(visitor) {
  const cookies = await visitor.context.cookies();
  return cookies.map(({ name, value }) => `${name}=${value}`).join("; ");
}

/** Posts fields as a program would that has the visitor's cookies. */
async function post(visitor, path, fields, headers = {}) {
  const cookie = await cookieHeader(visitor);
  const body = new URLSearchParams(fields);
  const options = { method: "POST", body, headers: { cookie, ...headers }, redirect: "manual" };
  return fetch(system.url + path, options);
}

const formToken = (page) => page.locator("input[name=form_token]").first().inputValue();
const isPaused = async () => (await system.api("/v1/ops/worker", { key: keys.operator.token })).body.paused;
const navigation = (page) => page.getByRole("navigation", { name: "Pages" }).getByRole("link").allInnerTexts();

test("key of an operator sees every page and all orders, and its name is recorded", async () => {
  const visitor = await arriveAs("operator");
  const { page } = visitor;
  await page.goto(`${system.url}/console/orders`);
  assert.equal((await navigation(page)).length, 8);
  for (const shop of ["alpha", "beta"]) await page.getByTitle(orders[shop]).waitFor();
  await page.goto(`${system.url}/console/workers/pause`);
  assert.equal(await page.getByLabel("Your name").count(), 0);
  await page.getByLabel("Reason").fill("Keys are tested");
  await page.getByRole("button", { name: "Pause workers" }).click();
  await page.getByText("Workers paused.").waitFor();
  await page.goto(`${system.url}/console`);
  const finding = page.locator(".attention li", { hasText: "has paused the workers: Keys are tested." });
  assert.ok((await finding.innerText()).startsWith(`api-key:${keys.operator.id}`), await finding.innerText());
  await page.goto(`${system.url}/console/workers/resume`);
  await page.getByLabel("Reason").fill("Keys were tested");
  await page.getByRole("button", { name: "Resume workers" }).click();
  await page.getByText("Workers resumed.").waitFor();
  const text = await page.goto(`${system.url}/console/system`).then(() => page.locator("body").innerText());
  for (const { token } of Object.values(keys)) assert.ok(!text.includes(token.split("_").at(-1)));
  await visitor.leave();
});

test("key without ops:write sees the pages and may change nothing", async () => {
  const visitor = await arriveAs("reader");
  const { page } = visitor;
  for (const name of OPERATOR_PAGES) {
    const response = await page.goto(`${system.url}/console/${name}`);
    assert.equal(response.status(), 200, name);
  }
  await page.getByText("read-only").waitFor();
  const order = `orders/${orders.alpha}`;
  const discard = `dead-letters/discard?order_id=${orders.alpha}`;
  const forms = [`${order}/redrive`, "workers/pause", "dead-letters/redrive", discard];
  for (const path of ["dead-letters", "workers", order, ...forms]) {
    await page.goto(`${system.url}/console/${path}`);
    await page.getByText("it lacks ops:write").first().waitFor();
    assert.equal(await page.locator("main form[method=post]").count(), 0, path);
    assert.equal(await page.locator("main .primary, main .danger").count(), 0, path);
  }
  // A form that the console did not show.
  const forged = { form_token: await formToken(page), reason: "forged", rate: "50", revision: "0" };
  for (const path of ["workers/pause", "dead-letters/redrive", `${order}/redrive`, `${order}/discard`]) {
    assert.equal((await post(visitor, `/console/${path}`, forged)).status, 403, path);
  }
  await post(visitor, `/console/${discard}`, forged);
  assert.equal(await isPaused(), false);
  const { body } = await system.api("/v1/dead-letters", { key: keys.operator.token });
  assert.equal(body.total, 2);
  await visitor.leave();
});

test("key of a tenant sees its orders and no page of operators", async () => {
  const visitor = await arriveAs("alpha");
  const { page } = visitor;
  await page.goto(`${system.url}/console`);
  assert.equal(page.url(), `${system.url}/console/orders`);
  assert.deepEqual(await navigation(page), ["Orders"]);
  await page.getByTitle(orders.alpha).waitFor();
  assert.equal(await page.getByTitle(orders.beta).count(), 0);
  await page.goto(`${system.url}/console/orders?q=cust-beta-001`);
  assert.equal(await page.getByTitle(orders.beta).count(), 0);
  for (const path of [orders.beta, `${orders.beta}/redrive`, `${orders.beta}/discard`]) {
    assert.equal((await page.goto(`${system.url}/console/orders/${path}`)).status(), 404, path);
  }
  assert.equal((await page.goto(`${system.url}/console/orders/${orders.alpha}`)).status(), 200);
  assert.equal(await page.getByRole("link", { name: "Redrive…" }).count(), 0);
  for (const name of [...OPERATOR_PAGES, "feed", `dead-letters/${orders.alpha}`, "dead-letters/tasks"]) {
    const response = await page.goto(`${system.url}/console/${name}`);
    assert.equal(response.status(), 403, name);
  }
  await visitor.assertAccessible();
  for (const name of ["dead-letters", "workers", `orders/${orders.beta}`, ""]) {
    const query = new URLSearchParams({ page: `/console/${name}` });
    const headers = { cookie: await cookieHeader(visitor) };
    const stream = await fetch(`${system.url}/console/live?${query}`, { headers });
    const reader = stream.body.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    const text = Buffer.from(value ?? []).toString();
    assert.ok(!text.includes("cust-beta-001") && !text.includes("retries_exhausted"), `${name}: ${text}`);
  }
  await visitor.leave();
});

test("two visitors with different keys see their own orders at once", async () => {
  const visitors = await Promise.all([arriveAs("alpha"), arriveAs("beta")]);
  await Promise.all(visitors.map(({ page }) => page.goto(`${system.url}/console/orders`)));
  const [alpha, beta] = visitors.map(({ page }) => page);
  await alpha.getByTitle(orders.alpha).waitFor();
  await beta.getByTitle(orders.beta).waitFor();
  // Only the open page of the own shop tells the new order.
  system.warehouse.behaviour = "fulfil";
  await system.place({ key: keys.alpha.token, customer: "cust-alpha-001" });
  await alpha.getByText(/1 new order/).waitFor();
  assert.equal(await beta.getByText(/new order/).count(), 0);
  for (const visitor of visitors) await visitor.leave();
});

test("session cookie is out of reach of scripts and of other sites", async () => {
  const visitor = await arriveAs("operator");
  const session = (await visitor.context.cookies()).find(({ name }) => name === "dofs_console");
  const { httpOnly, secure, sameSite, path, value, expires } = session;
  assert.deepEqual([httpOnly, secure, sameSite, path], [true, true, "Strict", "/console"]);
  assert.ok(expires > Date.now() / 1000);
  assert.ok(!decodeURIComponent(value).includes(keys.operator.token.slice(-16)));
  await visitor.page.goto(`${system.url}/console`);
  assert.equal(await visitor.page.evaluate(() => document.cookie), "");
  await visitor.leave();
});

test("link of another site opens the page with the session", async () => {
  const path = "/console/orders?status=FAILED&customer=a%27b%22;c";
  const follow = async (visitor) => {
    const { page } = visitor;
    const body = `<a href="${system.url}${path}">Orders</a>`;
    await page.route("http://chat.example/", (route) => route.fulfill({ contentType: "text/html", body }));
    await page.goto("http://chat.example/");
    const requests = [];
    page.on("request", (request) => requests.push(request.url()));
    await page.getByRole("link", { name: "Orders" }).click();
    return requests;
  };
  const [visitor, stranger] = [await arriveAs("operator"), await Visitor.arrive(browser)];
  const cookies = await cookieHeader(visitor);
  const requests = await follow(visitor);
  await visitor.page.getByRole("button", { name: "Sign out" }).waitFor();
  assert.equal(visitor.page.url(), system.url + path);
  assert.equal(await cookieHeader(visitor), cookies);
  assert.equal(requests.filter((address) => address === system.url + path).length, 2, requests.join(" "));
  // Another load of the page has the session, too.
  await visitor.page.reload();
  await visitor.page.getByRole("button", { name: "Sign out" }).waitFor();
  const refused = await follow(stranger);
  await stranger.page.getByLabel("API key").waitFor();
  assert.equal(new URL(stranger.page.url()).searchParams.get("next"), path);
  assert.equal(refused.filter((address) => address === system.url + path).length, 2, refused.join(" "));
  await visitor.leave();
  await stranger.leave();
});

test("forms without the session's token or of another origin are refused", async () => {
  const [visitor, other] = await Promise.all([arriveAs("operator"), arriveAs("reader")]);
  for (const { page } of [visitor, other]) await page.goto(`${system.url}/console/workers`);
  const reason = "forged";
  const form_token = await formToken(visitor.page);
  const foreign_token = await formToken(other.page);
  assert.notEqual(form_token, foreign_token);
  const pause = async (fields, headers) => (await post(visitor, "/console/workers/pause", fields, headers)).status;
  assert.equal(await pause({ reason }), 403);
  assert.equal(await pause({ reason, form_token: foreign_token }), 403);
  assert.equal(await pause({ reason, form_token }, { origin: "https://evil.example" }), 403);
  assert.equal(await pause({ reason, form_token }, { origin: "null" }), 403);
  assert.equal(await pause({ reason, form_token }, { "sec-fetch-site": "cross-site" }), 403);
  assert.equal((await post(visitor, "/console/sign-out", {})).status, 403);
  const { token: key } = keys.operator;
  assert.equal((await post(visitor, "/console/sign-in", { key }, { origin: "https://evil.example" })).status, 403);
  assert.equal(await isPaused(), false);
  await visitor.leave();
  await other.leave();
});

test("sign-in leads to the page that was asked for, and never to another site", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await page.goto(`${system.url}/console/orders?status=FAILED`);
  assert.match(page.url(), /\/console\/sign-in\?next=/);
  await page.getByLabel("API key").fill("dofs_dev_000000000000_wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("This key is not valid").waitFor();
  await page.getByLabel("API key").fill(keys.reader.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`${system.url}/console/orders?status=FAILED`);
  for (const next of ["https://evil.example/", "//evil.example", "/\\evil.example"]) {
    await page.goto(`${system.url}/console/sign-in?${new URLSearchParams({ next })}`);
    await page.getByLabel("API key").fill(keys.reader.token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.waitForURL(`${system.url}/console`);
  }
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
  await page.goto(`${system.url}/console/orders`);
  assert.match(page.url(), /\/console\/sign-in\?next=/);
  await visitor.leave();
});

test("open page leads to the sign-in when its key is revoked", async () => {
  const key = await createKey("short-lived", READ);
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  await visitor.signIn(system.url, key.token);
  await page.getByRole("button", { name: "Sign out" }).waitFor();
  await page.goto(`${system.url}/console/workers`);
  await system.run(["keys", "revoke", key.id, "--yes"]);
  await page.waitForURL(/\/console\/sign-in\?next=%2Fconsole%2Fworkers$/);
  await visitor.leave();
});

test("session outlasts a restart only with the same secret", async () => {
  const visitor = await arriveAs("operator");
  const { page } = visitor;
  await system.crashAndRestart();
  await page.goto(`${system.url}/console/system`);
  await page.getByRole("button", { name: "Sign out" }).waitFor();
  delete system.environment.DOFS__CONSOLE__SESSION_SECRET;
  await system.crashAndRestart();
  await page.goto(`${system.url}/console/system`);
  await page.getByLabel("API key").waitFor();
  await visitor.leave();
});

test("guesses of keys are limited", async () => {
  const visitor = await Visitor.arrive(browser);
  const { page } = visitor;
  const guess = () => post(visitor, "/console/sign-in", { key: "dofs_dev_000000000000_guess" });
  await page.goto(`${system.url}/console/sign-in`);
  const refused = await waitFor("the browser is refused", async () => {
    await Promise.all([guess(), guess(), guess(), guess(), guess()]);
    await page.getByLabel("API key").fill("dofs_dev_000000000000_guess");
    const answer = page.waitForResponse((response) => response.request().method() === "POST");
    await page.getByRole("button", { name: "Sign in" }).click();
    const response = await answer;
    return response.status() === 429 && response;
  });
  assert.ok(Number(refused.headers()["retry-after"]) > 0);
  await page.getByText("Too many attempts.").waitFor();
  await visitor.assertAccessible();
  await visitor.leave();
});
