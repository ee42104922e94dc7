// The page at work: follows the node, asks what the stream does not tell, and draws once a frame.
//
//   stream ─▶ take ─┐
//   rounds ─▶ learn ┼─▶ changed ─▶ one requestAnimationFrame ─▶ draw
//   a second passes ┘

import { again, ask, Denied, follow, Refused, setToken, tell, token } from "./feed.js";
import { changed, HEADS_MAX, known, learn, RECEIPTS_MAX, ROWS_MAX, setLink, take, wanted } from "./state.js";
import { draw } from "./view.js";

/** Script times of frames that are kept for whoever measures, ms; the oldest goes. */
const FRAMES_MAX = 4_096;
/** Heads that are asked for when one is new; a gap is asked for whole. */
const HEADS_A_ROUND = 8;

const frames = [];
let spent = 0;
let asked = false;

/** Has the next frame draw. A page that is not seen draws nothing and keeps only the newest. */
function schedule() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const began = performance.now();
    draw();
    frames.push(spent + performance.now() - began);
    if (frames.length > FRAMES_MAX) frames.shift();
    spent = 0;
  });
}

/** Does something that belongs to the next frame's time. */
function timed(work) {
  const began = performance.now();
  try {
    return work();
  } finally {
    spent += performance.now() - began;
    schedule();
  }
}

const event = (name, data) => timed(() => take(name, data));

async function round(name, path, lenient) {
  try {
    const answer = await ask(path, lenient);
    return timed(() => learn(name, answer));
  } catch (fault) {
    if (fault instanceof Denied && known.link === "live") void denied();
    // The stream says that the node is gone; a question that failed is asked again in the next round.
    return true;
  }
}

let asking = false;
async function heads(n) {
  if (asking) return;
  asking = true;
  wanted.heads = false;
  const whole = await round("heads", `/v1/heads?limit=${n}`);
  if (!whole && n < HEADS_MAX) await round("heads", `/v1/heads?limit=${HEADS_MAX}`);
  asking = false;
}
const lists = {
  ready: () => round("ready", "/readyz", true),
  peers: () => round("peers", "/v1/peers"),
  devices: () => round("devices", "/v1/devices"),
  ledger: () => round("ledger", `/v1/ledger?limit=${ROWS_MAX}`),
  mining: () => round("mining", "/v1/mining"),
  receipts: () => round("receipts", `/v1/receipts?limit=${RECEIPTS_MAX * 4}`),
  rejections: () => round("rejections", "/v1/rejections"),
};

/** Seconds between rounds. What an event makes stale is asked for with the next second. */
const EVERY = { ready: 3, peers: 5, devices: 3, ledger: 8, mining: 30, receipts: 10 };

let second = 0;
setInterval(() => {
  second += 1;
  changed.add("clock");
  schedule();
  if (known.link !== "live" || document.hidden) return;
  if (wanted.heads) void heads(HEADS_A_ROUND);
  for (const [name, every] of Object.entries(EVERY)) {
    if (second % every === 0 || wanted[name]) {
      if (name in wanted) wanted[name] = false;
      void lists[name]();
    }
  }
}, 1_000);

follow({
  live() {
    timed(() => setLink("live"));
    closeToken();
    void heads(HEADS_MAX);
    for (const list of Object.values(lists)) void list();
  },
  event,
  lost(why, pause) {
    timed(() => setLink("lost", why, Date.now() + pause));
  },
  denied,
});

document.getElementById("again").addEventListener("click", again);
addEventListener("online", again);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) again();
});

// The token: asked for once, kept until the tab is closed.
const dialog = document.getElementById("token");
let given = null;

function denied() {
  timed(() => setLink("token"));
  document.getElementById("token-wrong").hidden = token() === "";
  if (!dialog.open) dialog.showModal();
  return new Promise((done) => {
    given = done;
  });
}

function closeToken() {
  if (dialog.open) dialog.close();
}

dialog.addEventListener("cancel", (event) => event.preventDefault());
document.getElementById("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = document.getElementById("token-text");
  setToken(input.value.trim());
  input.value = "";
  given?.();
  given = null;
});

// Pause and resume.
const pause = document.getElementById("pause");
pause.addEventListener("click", async () => {
  pause.disabled = true;
  try {
    const answer = await tell("/v1/mining", { paused: !known.status.mining_paused });
    timed(() => {
      known.status.mining_paused = answer.paused;
      known.status.mining = answer.mining;
      changed.add("status");
      learn("mining", answer);
    });
  } catch (fault) {
    pause.title = fault instanceof Refused ? fault.message : "The node did not answer.";
    pause.disabled = false;
  }
});

// Colours: as the system, light, dark.
const theme = document.getElementById("theme");
const THEMES = ["", "light", "dark"];
function showTheme(chosen) {
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  theme.textContent = { "": "Auto", light: "Light", dark: "Dark" }[chosen];
  theme.setAttribute("aria-label", `Colours: ${{ "": "as the system", light: "light", dark: "dark" }[chosen]}`);
}
showTheme(document.documentElement.dataset.theme ?? "");
theme.addEventListener("click", () => {
  const chosen = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "") + 1) % THEMES.length];
  try {
    localStorage.setItem("tops-theme", chosen);
  } catch {
    // Until the page is left, then.
  }
  showTheme(chosen);
});

// For those who measure and test: the way of an event and of an answer into the page, and what frames cost.
globalThis.dashboard = Object.freeze({ event, answer: (name, body) => timed(() => learn(name, body)), frames, known });
