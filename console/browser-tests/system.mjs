// A running `dofs dev` in a temporary folder, with a gateway whose answers the test decides.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const BINARY = process.env.DOFS_BINARY;
if (!BINARY) throw new Error("DOFS_BINARY is not set: run scripts/check-console");

const DEADLINE_MS = 30_000;

/** Waits until `condition` returns a truthy value, and returns it. */
export async function waitFor(what, condition) {
  const deadline = Date.now() + DEADLINE_MS;
  let last;
  while (Date.now() < deadline) {
    last = await condition();
    if (last) return last;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not reached within ${DEADLINE_MS} ms: ${what}; last: ${JSON.stringify(last)}`);
}

/** A gateway: fulfils, refuses or fails, as the test says. */
class Warehouse {
  /** `fulfil`, `refuse` or `fail`. */
  behaviour = "fulfil";
  /** Texts of the answers. */
  reference = "wh-1";
  code = undefined;
  refusal = "Out of stock";
  failure = "maintenance";
  /** The orders that the gateway received, the newest last. */
  received = [];

  async start() {
    this.server = createServer((request, response) => {
      const parts = [];
      request.on("data", (part) => parts.push(part));
      request.on("end", () => {
        this.received.push(JSON.parse(Buffer.concat(parts).toString()));
        this.#answer(response);
      });
    });
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    this.url = `http://127.0.0.1:${this.server.address().port}/orders`;
  }

  #answer(response) {
    const [status, body] = {
      fulfil: [200, { reference: this.reference }],
      refuse: [422, { code: this.code, reason: this.refusal }],
      fail: [503, { error: this.failure }],
    }[this.behaviour];
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

/** A system of one process. */
export class System {
  static async start(environment = {}) {
    const system = new System();
    system.warehouse = new Warehouse();
    await system.warehouse.start();
    system.folder = await mkdtemp(join(tmpdir(), "dofs-console-"));
    system.environment = {
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("DOFS_"))),
      DOFS_LOG: "json",
      DOFS__OPS__LISTEN: "",
      DOFS__FULFILLMENT__GATEWAY: "http",
      DOFS__FULFILLMENT__URL: system.warehouse.url,
      DOFS__FULFILLMENT__MAX_RETRIES: "1",
      DOFS__FULFILLMENT__BACKOFF_MS: "1",
      DOFS__FULFILLMENT__BACKOFF_MAX_MS: "1",
      DOFS__FULFILLMENT__BREAKER_FAILURES: "100000",
      ...environment,
    };
    await system.#spawn("127.0.0.1:0");
    return system;
  }

  async #spawn(listen) {
    const data = join(this.folder, "data");
    const args = ["dev", "--data", data, "--listen", listen, "--node-listen", "127.0.0.1:0"];
    const stdio = ["ignore", "ignore", "pipe"];
    this.process = spawn(BINARY, args, { env: this.environment, stdio });
    this.log = [];
    const addresses = {};
    const lines = createInterface({ input: this.process.stderr });
    lines.on("line", (line) => {
      this.log = [...this.log.slice(-200), line];
      let entry;
      try { entry = JSON.parse(line); } catch { return; }
      if (entry.message === "HTTP server listening") addresses.http = entry.address;
      if (entry.message === "Event store listening") addresses.node = entry.address;
    });
    await waitFor("the system serves HTTP", () => {
      if (this.process.exitCode !== null) throw new Error(`dofs has ended:\n${this.log.join("\n")}`);
      return addresses.http && addresses.node;
    });
    this.url = `http://${addresses.http}`;
    this.node = addresses.node;
  }

  /** Lets the warehouse fulfil again, redrives all dead letters, and waits until there are none. */
  async clearDeadLetters() {
    this.warehouse.behaviour = "fulfil";
    const request = { method: "POST", body: { reason: "End of the test", filter: { stage: "dead_letter" } } };
    // 409 while another redrive runs.
    await waitFor("a redrive has started", async () => {
      return (await this.api("/v1/ops/dead-letters/redrives", request)).status === 202;
    });
    await this.waitForDeadLetters(0);
  }

  /** Waits until the API counts this many dead letters. */
  waitForDeadLetters(count) {
    return waitFor(`${count} dead letters`, async () => {
      return (await this.api("/v1/dead-letters")).body.total === count;
    });
  }

  /** Kills the process and starts it again on the same address. */
  async crashAndRestart(meanwhile = async () => {}) {
    const listen = this.url.slice("http://".length);
    await this.#end("SIGKILL");
    await meanwhile();
    await this.#spawn(listen);
  }

  /** Stops the process meanwhile: its connections stay open, and nothing comes from them. */
  async whileSilent(meanwhile) {
    this.process.kill("SIGSTOP");
    try {
      await meanwhile();
    } finally {
      this.process.kill("SIGCONT");
    }
  }

  async stop() {
    await this.#end("SIGKILL");
    this.warehouse.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  async #end(signal) {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    this.process.kill(signal);
    await once(this.process, "exit");
  }

  /** Creates an API key by the command line, waits until the API accepts the key, and returns it. */
  async createKey(name, scopes, tenant) {
    const args = ["keys", "create", "--name", name, "--scope", scopes.join(","), "--json"];
    args.push(...(tenant ? ["--tenant", tenant] : ["--all-tenants"]));
    const key = JSON.parse(await this.run(args));
    const isAccepted = async () => (await this.api("/v1/principal", { key: key.token })).status === 200;
    await waitFor(`the API accepts the key ${name}`, isAccepted);
    return key;
  }

  /** Runs a command against the stores of the system and returns its standard output. */
  async run(args) {
    const environment = {
      ...this.environment,
      DOFS__EVENT_STORE__URL: `esdb://${this.node}?tls=false`,
      DOFS__READ_MODEL__URL: `sqlite://${join(this.folder, "data", "read-model.sqlite")}`,
    };
    const child = spawn(BINARY, args, { env: environment, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    child.stdout.on("data", (data) => { output += data; });
    child.stderr.on("data", (data) => { errors += data; });
    const [code] = await once(child, "close");
    if (code !== 0) throw new Error(`dofs ${args.join(" ")}: exit code ${code}: ${errors}`);
    return output;
  }

  /** Sends a request to the API and returns status and body. */
  async api(path, { method = "GET", body, key } = {}) {
    const headers = { "content-type": "application/json" };
    if (key) headers.authorization = `Bearer ${key}`;
    const options = { method, headers, body: body === undefined ? undefined : JSON.stringify(body) };
    const response = await fetch(this.url + path, options);
    return { status: response.status, body: await response.json() };
  }

  /** Places an order and returns its id. */
  async place({ customer = "cust-retail-001", items, key } = {}) {
    const order = { customer_id: customer, items: items ?? [{ product_id: "prod-widget-001", quantity: 2 }] };
    const { status, body } = await this.api("/v1/orders", { method: "POST", body: order, key });
    if (status !== 202 && status !== 422) throw new Error(`order not placed: ${status} ${JSON.stringify(body)}`);
    return body.order_id;
  }

  /** Places orders that end in the way that `behaviour` names, and waits until the lists show them. */
  async placeEnded(count, behaviour, order = {}) {
    this.warehouse.behaviour = behaviour;
    const ids = [];
    for (let index = 0; index < count; index += 1) ids.push(await this.place(order));
    for (const id of ids) await this.waitUntilEnded(id, order.key);
    return ids;
  }

  /** Waits until the row of the order has its end. */
  async waitUntilEnded(id, key) {
    return waitFor(`order ${id} has ended`, async () => {
      const { body } = await this.api(`/v1/orders/${id}`, { key });
      return body.status !== "PROCESSING" && body.source === "table" && body;
    });
  }
}
