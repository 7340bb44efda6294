// Adds movement to pages that work without it: live regions, current ages, keyboard, copying.

const root = document.documentElement;
root.classList.add("js");

// Live regions. The server sends a region only if it has changed.
const main = document.querySelector("main[data-live]");
if (main) {
  const stale = main.querySelector(".stale");
  const replace = (name, html) => {
    const region = main.querySelector(`[data-region="${CSS.escape(name)}"]`);
    if (!region) return;
    // A visitor who reads, selects or types in a region must not lose the place.
    const open = [...region.querySelectorAll("details")].map((details) => details.open);
    const focused = region.contains(document.activeElement) ? focusPath(region) : null;
    const scrolled = [...region.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    region.innerHTML = html;
    region.querySelectorAll("details").forEach((details, index) => { details.open = open[index] ?? details.open; });
    region.querySelectorAll(".scroll").forEach((box, index) => {
      [box.scrollLeft, box.scrollTop] = scrolled[index] ?? [0, 0];
    });
    if (focused !== null) region.querySelectorAll(FOCUSABLE)[focused]?.focus({ preventScroll: true });
    updateAges(region);
  };
  let source;
  const connect = () => {
    source = new EventSource(main.dataset.live);
    source.addEventListener("regions", (message) => {
      if (stale) stale.hidden = true;
      for (const [name, html] of Object.entries(JSON.parse(message.data))) replace(name, html);
    });
    source.addEventListener("expired", () => { source.close(); location.reload(); });
    source.addEventListener("error", () => {
      if (stale) stale.hidden = false;
      // The browser retries by itself unless the server refused the stream.
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
    });
    source.addEventListener("open", () => { if (stale) stale.hidden = true; });
  };
  connect();
  // Browsers keep a page that the visitor left; its stream would count against the server's limit.
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
}

const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

function focusPath(region) {
  const index = [...region.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  return index < 0 ? null : index;
}

// Ages.
function formatSeconds(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function updateAges(scope) {
  for (const element of scope.querySelectorAll("time[data-relative]")) {
    const seconds = Math.floor((Date.now() - Date.parse(element.dateTime)) / 1000);
    const text = seconds < 0 ? `in ${formatSeconds(-seconds)}`
      : seconds === 0 ? "just now" : `${formatSeconds(seconds)} ago`;
    if (element.textContent !== text) element.textContent = text;
  }
}

setInterval(() => { if (!document.hidden) updateAges(document); }, 5000);

// Copy buttons: data-copy is the id of the element whose text is copied.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy)?.textContent ?? "";
  const name = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copying is not allowed";
  }
  setTimeout(() => { button.textContent = name; }, 1500);
});

// A checkbox with data-select-all selects the checkboxes of its form with that name.
document.addEventListener("change", (event) => {
  const name = event.target.dataset?.selectAll;
  if (!name) return;
  for (const box of event.target.form.querySelectorAll(`input[type=checkbox][name="${CSS.escape(name)}"]`)) {
    box.checked = event.target.checked;
  }
});

// A form with data-submit-on-change needs no button: filters, and the slider over revisions.
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-submit-on-change]");
  if (form) form.requestSubmit();
});
document.addEventListener("input", (event) => {
  const output = event.target.closest("form")?.querySelector("output[for]");
  if (output && event.target.type === "range") output.textContent = event.target.value;
});

// Live feed of events: rows of text, the newest first.
const feed = document.querySelector("[data-feed]");
if (feed) {
  const MAX_ROWS = 200;
  const status = document.getElementById("feed-status");
  const pause = document.getElementById("feed-pause");
  const waiting = [];
  let paused = false;
  const cell = (text, name) => {
    const element = document.createElement("td");
    element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const addRow = (event) => {
    const row = document.createElement("tr");
    const time = document.createElement("time");
    time.dateTime = event.recorded_at;
    time.title = event.recorded_at;
    time.textContent = new Date(event.recorded_at).toISOString().slice(11, 23);
    const at = cell("");
    at.append(time);
    const link = document.createElement("a");
    link.href = `/console/orders/${encodeURIComponent(event.order_id)}`;
    link.textContent = `${event.order_id.slice(0, 8)}…${event.order_id.slice(28)}`;
    link.title = event.order_id;
    const order = cell("", "id");
    order.append(link);
    row.append(at, cell(event.type), order, cell(String(event.revision), "number"), cell(event.metadata?.actor ?? "–"));
    feed.prepend(row);
    while (feed.rows.length > MAX_ROWS) feed.deleteRow(-1);
  };
  const show = () => {
    if (!status) return;
    status.textContent = paused ? `Paused. ${waiting.length} new events wait.` : "Live";
  };
  const stream = new EventSource(feed.dataset.feed);
  stream.onmessage = (message) => receive(JSON.parse(message.data));
  for (const type of (feed.dataset.types ?? "").split(" ").filter(Boolean)) {
    stream.addEventListener(type, (message) => receive(JSON.parse(message.data)));
  }
  const receive = (event) => {
    if (!event.order_id) return;
    if (paused) {
      waiting.push(event);
      if (waiting.length > MAX_ROWS) waiting.shift();
    } else {
      addRow(event);
    }
    show();
  };
  stream.onopen = show;
  stream.onerror = () => { if (status) status.textContent = "Connection lost. The list is not current."; };
  pause?.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    if (!paused) waiting.splice(0).forEach(addRow);
    show();
  });
  addEventListener("pagehide", () => stream.close());
}

// Keyboard.
const PAGES = {
  v: "/console", o: "/console/orders", d: "/console/dead-letters", w: "/console/workers", p: "/console/projections",
};
let isGoing = false;
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (isGoing && PAGES[event.key]) {
    event.preventDefault();
    location.assign(PAGES[event.key]);
  } else if (event.key === "/") {
    event.preventDefault();
    document.querySelector('[data-key="/"]')?.focus();
  } else if (event.key === "?") {
    document.getElementById("keyboard-help")?.showModal();
  }
  isGoing = event.key === "g";
});
