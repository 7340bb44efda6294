// Adds movement to pages that work without it: live regions, current ages, keyboard, copying.

const root = document.documentElement;
root.classList.add("js");

// Opens a stream again that the server refused; after other failures, the browser does so by itself. If the
// session has ended, the page leads to the sign-in.
function retry(connect) {
  setTimeout(async () => {
    const page = await fetch(location.href, { method: "HEAD", redirect: "manual" }).catch(() => null);
    if (page?.type === "opaqueredirect") location.reload(); else connect();
  }, 5000);
}

// Live regions. The server sends a region only if it has changed.
const main = document.querySelector("main[data-live]");
if (main) {
  const stale = main.querySelector(".stale");
  const replace = (name, html) => {
    const region = main.querySelector(`[data-region="${CSS.escape(name)}"]`);
    if (!region) return;
    // A visitor who reads, selects or types in a region must not lose the place.
    const open = [...region.querySelectorAll("details")].map((details) => details.open);
    const focused = region.contains(document.activeElement) ? findFocus(region) : null;
    const scrolled = [...region.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    region.innerHTML = html;
    region.querySelectorAll("details").forEach((details, index) => { details.open = open[index] ?? details.open; });
    region.querySelectorAll(".scroll").forEach((box, index) => {
      [box.scrollLeft, box.scrollTop] = scrolled[index] ?? [0, 0];
    });
    // Another element at the place of a removed one must not get the key press that was meant for it.
    if (focused) (findSame(region, focused) ?? main).focus({ preventScroll: true });
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
      if (source.readyState === EventSource.CLOSED) retry(connect);
    });
    source.addEventListener("open", () => { if (stale) stale.hidden = true; });
  };
  connect();
  // Browsers keep a page that the visitor left; its stream would count against the server's limit.
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
}

const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

const identify = (element) => element.getAttribute("href") ?? element.ariaLabel ?? element.textContent;

function findFocus(region) {
  const index = [...region.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  return index < 0 ? null : { index, identity: identify(document.activeElement) };
}

function findSame(region, { index, identity }) {
  const elements = [...region.querySelectorAll(FOCUSABLE)];
  const isSame = (element) => element && identify(element) === identity;
  return isSame(elements[index]) ? elements[index] : elements.find(isSame);
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
  // The text of a second click would be the answer to the first.
  const name = button.dataset.name ??= button.textContent;
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

// Live feed of events, the newest first.
const feed = document.querySelector("[data-feed]");
if (feed) {
  const MAX_ROWS = 200;
  const rows = feed.querySelector("tbody");
  const [pause, status, count, skipped] =
    ["pause", "status", "count", "skipped"].map((name) => document.getElementById(`feed-${name}`));
  let stream;
  let waiting = [];
  let nWaiting = 0;
  let isPaused = false;
  let isLoading = true;
  let isScheduled = false;
  const has = (id) => rows.querySelector(`[data-event="${CSS.escape(id)}"]`);
  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    return Object.assign(element, attributes);
  };
  // The same row as the server's.
  const toRow = (event) => {
    const iso = new Date(event.recorded_at).toISOString();
    const text = iso.slice(0, 23).replace("T", " ");
    const time = make("time", text, { dateTime: event.recorded_at, title: `${text} UTC` });
    const id = event.order_id;
    const link = make("a", `${id.slice(0, 8)}…${id.slice(28)}`,
      { className: "id", href: `/console/orders/${encodeURIComponent(id)}`, title: id });
    const row = make("tr", "");
    row.dataset.event = event.event_id;
    for (const content of [time, event.type, link, event.revision, event.metadata?.actor ?? "–"]) {
      const cell = make("td", "");
      cell.append(content);
      row.append(cell);
    }
    return row;
  };
  const show = () => {
    isScheduled = false;
    if (!isPaused && !isLoading) {
      for (const row of waiting) if (!has(row.dataset.event)) rows.prepend(row);
      while (rows.rows.length > MAX_ROWS) rows.deleteRow(-1);
      waiting = [];
      nWaiting = 0;
    }
    count.textContent = isPaused ? `${nWaiting} new events` : "";
  };
  const tell = (text) => { if (status.textContent !== text) status.textContent = text; };
  const tellState = () => tell(isPaused ? "Paused" : "Live");
  const receive = (message) => {
    waiting.push(toRow(JSON.parse(message.data)));
    if (waiting.length > MAX_ROWS) waiting.shift();
    nWaiting += 1;
    // Browsers draw no frames of hidden pages, so those wait.
    if (!isScheduled) requestAnimationFrame(show);
    isScheduled = true;
  };
  // Events between the page and its stream, or between two streams, are only on a new page.
  const load = async () => {
    const page = await fetch(location.href).then((answer) => answer.text()).catch(() => "");
    const current = new DOMParser().parseFromString(page, "text/html").querySelector("[data-feed] tbody");
    const newest = [...current?.rows ?? []];
    const missing = newest.filter((row) => !has(row.dataset.event));
    if (rows.rows.length && newest.length && missing.length === newest.length) skipped.hidden = false;
    waiting.unshift(...missing.reverse());
    isLoading = false;
    show();
  };
  const connect = () => {
    let isNew = true;
    isLoading = true;
    stream = new EventSource(feed.dataset.feed);
    for (const type of feed.dataset.types.split(" ")) stream.addEventListener(type, receive);
    stream.addEventListener("reset", (message) => {
      // The browser resumes a stream that was too slow where it ended.
      if (JSON.parse(message.data).reason === "unknown_position") skipped.hidden = false;
    });
    stream.onopen = () => {
      tellState();
      if (isNew) load();
      isNew = false;
    };
    stream.onerror = () => {
      tell("Connection lost. The list is not current.");
      if (stream.readyState === EventSource.CLOSED) retry(connect);
    };
  };
  connect();
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    tellState();
    show();
  });
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
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
