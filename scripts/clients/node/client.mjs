// Uses an embedded event store with TLS and users by the official Node client: credentials, access
// control lists, and a group on $all. Environment: NODE (host:port), CA (file), PASSWORD (of all users).
import assert from "node:assert/strict";
import {
  ANY, AccessDeniedError, KurrentDBClient, START, jsonEvent, persistentSubscriptionToAllSettingsFromDefaults,
} from "@kurrent/kurrentdb-client";

const { NODE, CA, PASSWORD } = process.env;
const connect = (user, password = PASSWORD) =>
  KurrentDBClient.connectionString(`kurrentdb://${user}:${password}@${NODE}?tls=true&tlsCaFile=${CA}`);
const event = (number) => jsonEvent({ type: "Happened", data: { number } });
const append = (client, stream, number = 0) => client.appendToStream(stream, event(number), { expectedRevision: ANY });
const read = async (events) => {
  const seen = [];
  for await (const resolved of events) seen.push(resolved.event?.data);
  return seen;
};
const checkDenied = (what, call) => assert.rejects(call, AccessDeniedError, `${what} is not denied`);

const [admin, ada, bob] = ["admin", "ada", "bob"].map((user) => connect(user));
await append(ada, "typescript", 1);
assert.deepEqual(await read(ada.readStream("typescript")), [{ number: 1 }]);

const acl = { $r: ["ada"], $w: ["ada"], $d: ["admin"], $mr: ["ada"], $mw: ["admin"] };
const metadata = {
  acl: { readRoles: acl.$r, writeRoles: acl.$w, deleteRoles: acl.$d, metaReadRoles: acl.$mr, metaWriteRoles: acl.$mw },
};
await admin.setStreamMetadata("typescript", metadata);
await append(ada, "typescript", 2);
await checkDenied("read", () => read(bob.readStream("typescript")));
await checkDenied("append", () => append(bob, "typescript"));
await checkDenied("read of metadata", () => bob.getStreamMetadata("typescript"));
await checkDenied("metadata", () => ada.setStreamMetadata("typescript", {}));
await checkDenied("delete", () => ada.deleteStream("typescript"));
await checkDenied("tombstone", () => ada.tombstoneStream("typescript"));
await checkDenied("read of $all", () => read(bob.readAll({ maxCount: 1 })));

const settings = persistentSubscriptionToAllSettingsFromDefaults({ startFrom: START });
await checkDenied("group", () => ada.createPersistentSubscriptionToAll("typescript", settings));
await admin.createPersistentSubscriptionToAll("typescript", settings);
await admin.setStreamMetadata("$all", { acl: { readRoles: ["$admins", "ada"] } });
const subscription = ada.subscribeToPersistentSubscriptionToAll("typescript");
for await (const delivered of subscription) {
  await subscription.ack(delivered);
  break;
}
await assert.rejects(() => append(connect("ada", "wrong-password"), "typescript"), "a wrong password is accepted");
console.log("node: all passed");
await Promise.all([admin, ada, bob].map((client) => client.dispose()));
process.exit(0);
