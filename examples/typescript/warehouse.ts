// A sample warehouse: POST /orders, as in docs/OPERATIONS.md, "Gateway contract".
//
// Ships every order, except those with products `discontinued-*`. Effect and answer of an idempotency key are
// one line of an append-only file, so that a repeated call has no second effect.
import { randomUUID } from "node:crypto";
import { open, readFile, type FileHandle } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import { parseArgs } from "node:util";

interface Order {
  order_id: string;
  items: { product_id: string; quantity: number }[];
}

interface Answer {
  status: number;
  body: { reference?: string; code?: string; reason?: string };
}

interface Entry extends Answer {
  key: string;
  order_id: string;
}

class Warehouse {
  private readonly answers = new Map<string, Answer>();
  private readonly references = new Map<string, string>();
  /** Calls whose answers are not durable yet. */
  private readonly inFlight = new Map<string, Promise<Answer>>();
  private lastWrite: Promise<void> = Promise.resolve();

  private constructor(
    private readonly file: FileHandle,
    private readonly maxInFlight: number,
  ) {}

  static async open(path: string, maxInFlight: number): Promise<Warehouse> {
    const file = await open(path, "a+");
    const warehouse = new Warehouse(file, maxInFlight);
    const content = await readFile(file);
    // A line without end was cut off by a crash before its answer was sent.
    const end = content.lastIndexOf("\n") + 1;
    await file.truncate(end);
    const lines = content.subarray(0, end).toString().split("\n");
    for (const line of lines.filter((line) => line !== "")) warehouse.remember(JSON.parse(line) as Entry);
    return warehouse;
  }

  /** Returns the answer to a call when it is durable. */
  async fulfil(key: string, order: Order): Promise<Answer> {
    const known = this.answers.get(key) ?? this.inFlight.get(key);
    // Duplicates wait for the first call.
    if (known !== undefined) return known;
    if (this.inFlight.size >= this.maxInFlight) return { status: 503, body: { reason: "busy" } };
    const call = this.record(key, order);
    this.inFlight.set(key, call);
    return call.finally(() => this.inFlight.delete(key));
  }

  private async record(key: string, order: Order): Promise<Answer> {
    // One write at a time: the line of an earlier attempt must be known before an order is shipped again.
    const write = this.lastWrite.then(async () => {
      const entry: Entry = { key, order_id: order.order_id, ...this.ship(order) };
      await this.append(entry);
      this.remember(entry);
      return entry;
    });
    this.lastWrite = write.then(() => undefined);
    const { status, body } = await write;
    return { status, body };
  }

  private async append(entry: Entry): Promise<void> {
    try {
      await this.file.appendFile(`${JSON.stringify(entry)}\n`);
      await this.file.datasync();
    } catch (error) {
      // The line may be in the file or not. A restart reads what has become durable.
      console.error(`cannot record the answer: ${String(error)}`);
      process.exit(1);
    }
  }

  private ship(order: Order): Answer {
    const gone = order.items.find((item) => item.product_id.startsWith("discontinued-"));
    if (gone !== undefined) {
      const reason = `${gone.product_id} is not sold any more`;
      return { status: 422, body: { code: "discontinued", reason } };
    }
    // A redrive has a new key. The order may have been shipped if its earlier answers were lost.
    const reference = this.references.get(order.order_id) ?? `wh-${randomUUID()}`;
    return { status: 200, body: { reference } };
  }

  private remember({ key, order_id, status, body }: Entry): void {
    this.answers.set(key, { status, body });
    if (body.reference !== undefined) this.references.set(order_id, body.reference);
  }
}

function parseOrder(content: string): Order | undefined {
  try {
    const order = JSON.parse(content) as Order;
    const isValid =
      typeof order.order_id === "string" &&
      order.items.length > 0 &&
      order.items.every((item) => typeof item.product_id === "string");
    return isValid ? order : undefined;
  } catch {
    return undefined;
  }
}

async function answer(warehouse: Warehouse, request: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  if (request.method === "GET" && request.url === "/health") return { status: 200, body: {} };
  const key = request.headers["idempotency-key"];
  const order = parseOrder(Buffer.concat(chunks).toString());
  if (request.method !== "POST" || request.url !== "/orders" || typeof key !== "string" || order === undefined) {
    // Not 422, which would fail the order for good.
    const reason = "expected POST /orders with Idempotency-Key and an order";
    return { status: 400, body: { reason } };
  }
  const result = await warehouse.fulfil(key, order);
  console.log(JSON.stringify({ order_id: order.order_id, key, status: result.status, ...result.body }));
  return result;
}

const { values } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:8081" },
    file: { type: "string", default: "warehouse.jsonl" },
    "max-in-flight": { type: "string", default: "64" },
  },
});
const warehouse = await Warehouse.open(values.file, Number(values["max-in-flight"]));
const server = createServer((request, response) => {
  answer(warehouse, request).then(
    ({ status, body }) => {
      const headers = { "Content-Type": "application/json", ...(status === 503 && { "Retry-After": "1" }) };
      response.writeHead(status, headers).end(JSON.stringify(body));
    },
    // The client closed the connection before the end of its request.
    () => response.destroy(),
  );
});
process.on("SIGTERM", () => process.exit(0));
const separator = values.listen.lastIndexOf(":");
server.listen(Number(values.listen.slice(separator + 1)), values.listen.slice(0, separator), () => {
  const address = server.address();
  console.log(JSON.stringify({ listening: typeof address === "object" ? `${address?.address}:${address?.port}` : "" }));
});
