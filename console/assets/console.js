// Adds movement to pages that work without it: live regions, current ages, keyboard, copying.

const root = document.documentElement;
root.classList.add("js");

// The server sends a message at least every 15 s.
const MAX_SILENCE_MS = 45_000;

// Keeps a stream open while the page is visible. Browsers open at most six connections to a server, so the
// streams of hidden tabs would block other tabs. `open` returns a new stream; `types` are its messages.
function keepStreamOpen(open, types) {
  let stream = null;
  let timer;
  const close = () => {
    clearTimeout(timer);
    stream?.close();
    stream = null;
  };
  const reopen = () => {
    close();
    if (document.hidden) return;
    const opened = stream = open();
    // A browser does not notice that a network drops all packets of a connection.
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        opened.dispatchEvent(new Event("error"));
        reopen();
      }, MAX_SILENCE_MS);
    };
    for (const type of ["open", "alive", ...types]) opened.addEventListener(type, watch);
    watch();
    opened.addEventListener("error", () => {
      // After other failures, the browser connects again by itself.
      if (opened.readyState === EventSource.CLOSED) setTimeout(retry, 5000, opened);
    });
  };
  // Opens a stream again that the server has refused. If the session has ended, the page leads to the sign-in.
  const retry = async (refused) => {
    if (stream !== refused) return;
    const page = await fetch(location.href, { method: "HEAD", redirect: "manual" }).catch(() => null);
    if (page?.type === "opaqueredirect") location.reload();
    else if (stream === refused) reopen();
  };
  document.addEventListener("visibilitychange", reopen);
  // Browsers may keep a page that the visitor has left.
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) reopen(); });
  reopen();
}

// Live regions. The server sends a region only if it has changed.
const main = document.querySelector("main[data-live]");
if (main) {
  const stale = main.querySelector(".stale");
  const received = new Map();
  const replace = (name, html) => {
    const region = main.querySelector(`[data-region="${CSS.escape(name)}"]`);
    // The first message of a new stream has all regions, also those that have not changed.
    if (!region || received.get(name) === html) return;
    received.set(name, html);
    // Opened details, focus and scroll position stay.
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
  const setStale = (isStale) => {
    const text = isStale ? "Connection lost. The figures are not current." : "";
    if (stale && stale.textContent !== text) stale.textContent = text;
  };
  keepStreamOpen(() => {
    const stream = new EventSource(main.dataset.live);
    stream.addEventListener("regions", (message) => {
      for (const [name, html] of Object.entries(JSON.parse(message.data))) replace(name, html);
    });
    stream.addEventListener("expired", () => { stream.close(); location.reload(); });
    stream.addEventListener("open", () => setStale(false));
    stream.addEventListener("error", () => setStale(true));
    return stream;
  }, ["regions"]);
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
  // Rows that are not shown yet, the oldest first: those of earlier streams, and those of this stream.
  let held = [];
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
    const actor = event.metadata?.actor ?? make("span", "–", { className: "absent" });
    for (const content of [time, event.type, link, event.revision, actor]) {
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
  const setStatus = (text) => { if (status.textContent !== text) status.textContent = text; };
  const showState = () => setStatus(isPaused ? "Paused" : "Live");
  const receive = (message) => {
    waiting.push(toRow(JSON.parse(message.data)));
    if (waiting.length > MAX_ROWS) waiting.shift();
    nWaiting += 1;
    // Browsers draw no frames of hidden pages, so those wait.
    if (!isScheduled) requestAnimationFrame(show);
    isScheduled = true;
  };
  // Events between the page and its stream, or between two streams, are only on a new page.
  const load = async (stream) => {
    const page = await fetch(location.href).then((answer) => answer.text()).catch(() => "");
    const current = new DOMParser().parseFromString(page, "text/html").querySelector("[data-feed] tbody");
    if (stream.readyState === EventSource.CLOSED) return;
    // The page could not be read, so events may be missing.
    if (!current) skipped.hidden = false;
    const newest = [...current?.rows ?? []];
    const known = new Set([...rows.rows, ...held].map((row) => row.dataset.event));
    const following = newest.filter((row) => !known.has(row.dataset.event));
    if (known.size && newest.length && following.length === newest.length) {
      // The page has none of the known events, so others lie between. The list begins again, but a visitor who
      // has paused keeps it.
      if (isPaused) skipped.hidden = false; else rows.replaceChildren();
    }
    const streamed = new Set(waiting.map((row) => row.dataset.event));
    const missing = following.filter((row) => !streamed.has(row.dataset.event)).reverse();
    waiting = [...held, ...missing, ...waiting].slice(-MAX_ROWS);
    held = [];
    nWaiting += missing.length;
    isLoading = false;
    show();
  };
  keepStreamOpen(() => {
    const stream = new EventSource(feed.dataset.feed);
    let isNew = true;
    isLoading = true;
    held = [...held, ...waiting];
    waiting = [];
    for (const type of feed.dataset.types.split(" ")) stream.addEventListener(type, receive);
    stream.addEventListener("reset", (message) => {
      // The browser resumes a stream that was too slow where it ended.
      if (JSON.parse(message.data).reason === "unknown_position") skipped.hidden = false;
    });
    stream.onopen = () => {
      showState();
      if (isNew) load(stream);
      isNew = false;
    };
    stream.onerror = () => setStatus("Connection lost. The list is not current.");
    return stream;
  }, feed.dataset.types.split(" "));
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    showState();
    show();
  });
}

// Keyboard.
const PAGES = {
  v: "/console", o: "/console/orders", d: "/console/dead-letters", w: "/console/workers", p: "/console/projections",
};
const help = document.getElementById("keyboard-help");
document.getElementById("keyboard-open")?.addEventListener("click", () => help.showModal());

const shortcuts = document.getElementById("shortcuts");
shortcuts?.addEventListener("change", async () => {
  root.dataset.shortcuts = shortcuts.checked ? "on" : "off";
  const { action, method } = shortcuts.form;
  const body = new URLSearchParams(new FormData(shortcuts.form));
  const answer = await fetch(action, { method, body, redirect: "manual" }).catch(() => null);
  const text = answer?.ok ? "Saved." : "Not saved: this applies only until you leave the page.";
  document.getElementById("shortcuts-status").textContent = text;
});

// Time until which a key completes `g`.
let goUntil = 0;
document.addEventListener("keydown", (event) => {
  // Not a checkbox: the one in the help keeps the focus for a moment after the help has closed.
  const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
  // A page without the help has no means to switch the shortcuts off.
  if (!help || help.open || root.dataset.shortcuts === "off") return;
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.timeStamp < goUntil && PAGES[event.key]) {
    event.preventDefault();
    location.assign(PAGES[event.key]);
  } else if (event.key === "/") {
    event.preventDefault();
    document.querySelector('[data-key="/"]')?.focus();
  } else if (event.key === "?") {
    help.showModal();
  }
  goUntil = event.key === "g" ? event.timeStamp + 1000 : 0;
});
