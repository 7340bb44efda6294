// Photographs the main pages of a console: node screenshots.mjs ADDRESS FOLDER

import { chromium } from "playwright-core";

const [address, folder] = process.argv.slice(2);
const origin = new URL(address).origin;
const CHART_MS = 180_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
});

async function photograph(name, path, { colorScheme = "light", height = 900 } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height }, colorScheme });
  const page = await context.newPage();
  await page.goto(origin + path);
  await page.locator("h1").waitFor();
  await page.screenshot({ path: `${folder}/${name}.png` });
  await context.close();
}

async function list(path) {
  const response = await fetch(origin + path);
  return (await response.json()).items;
}

await new Promise((resolve) => setTimeout(resolve, CHART_MS));
const [letter] = await list("/v1/failed-orders?stage=dead_letter&limit=1");
await photograph("overview", "/console");
await photograph("overview-dark", "/console", { colorScheme: "dark" });
await photograph("orders", "/console/orders", { height: 700 });
await photograph("order", `/console/orders/${letter.order_id}`, { height: 1000 });
await photograph("dead-letters", "/console/dead-letters", { height: 800 });
await photograph("redrive", "/console/dead-letters/redrive?stage=dead_letter", { height: 800 });
await photograph("workers-dark", "/console/workers", { colorScheme: "dark", height: 600 });
await browser.close();
