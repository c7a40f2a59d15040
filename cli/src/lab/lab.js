// The page of `finale lab`.
//
// A run is a script. The server plays it and answers with the whole ladder: rows, and how each side
// stands after each of them (`moments`). The page only shows a part of that: up to a place in time.
// A button cuts off what comes after that place, adds an action, and has the script played again.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const STEP_US = 10_000;
/** How fast rows appear: milliseconds until the next one, of the virtual time until it. */
const PACES = {
  // A long run takes some seconds, too.
  quick: (us) => Math.min(70, Math.max(12, 5000 / player.places.length)) + Math.min(us / 50, 500),
  slow: () => 1000,
  real: (us) => us / 1000,
  jump: () => 0,
};

// --- texts

function time(us) {
  if (us < 1e6) return `${(us / 1000).toFixed(3)} ms`;
  const s = us / 1e6;
  if (s < 3600) return `${s.toFixed(3)} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min ${(s % 60).toFixed(1)} s`;
}

function span(us) {
  const s = Math.max(0, us) / 1e6;
  if (s >= 3600) return `${(s / 3600).toFixed(1)} h`;
  return s >= 60 ? `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s` : `${s.toFixed(2)} s`;
}

const bytes = (n) => (n === 1 ? "1 byte" : `${n.toLocaleString("en")} bytes`);

function make(name, props = {}, ...children) {
  const { className, text, ...rest } = props;
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(rest)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A text of the guided runs: names of code are between backticks. */
function rich(name, text, props = {}) {
  const parts = text.trim().split("`").map((part, at) => (at % 2 ? make("code", { text: part }) : part));
  return make(name, props, ...parts);
}

function say(text, isWrong = false) {
  const said = $("#said");
  said.textContent = text;
  said.classList.toggle("wrong", isWrong);
}

async function get(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the lab does not answer: is `finale lab` still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? response.statusText);
  return answer;
}

const query = (values) => new URLSearchParams(values).toString();

// --- the machines

const ACTIONS = [
  ["connect", "Connect", "c"],
  ["write", "Write", "w"],
  ["end", "End", "e"],
  ["destroy", "Destroy", "d"],
  ["pause", "Pause reading", "p"],
  ["resume", "Resume", "r"],
  ["discard", "Discard", "x"],
  ["close", "close(2)", "l"],
  ["crash", "Crash", "k"],
  ["vanish", "Vanish", "v"],
];
const MORE = [
  ["fork", "A child gets a copy of the descriptor"],
  ["freeze", "Freeze the program (SIGSTOP)"],
  ["thaw", "Thaw it (SIGCONT)"],
  ["reboot", "Restart the machine"],
];
const HINTS = {
  connect: "Connect to the server, which listens.",
  write: "The program writes bytes.",
  end: "Our FIN follows the last byte; reading continues.",
  destroy: "Reset the connection.",
  pause: "The program stops reading; its kernel does not.",
  resume: "It reads again.",
  discard: "After its end, the program drops what still arrives.",
  close: "Close at once, as a program without finale does: a reset if bytes are unread.",
  crash: "The program dies; its kernel closes the connection: a reset if bytes are unread.",
  vanish: "The machine loses power: nothing is sent any more.",
};
const BLOWS = ["destroy", "crash", "vanish", "close", "reboot"];

/** The names, meanings and pictures of states: the same for every stage. */
const knowledge = { meanings: new Map(), pictures: {} };

async function learn() {
  for (const { state, meaning } of await get("/api/states")) {
    knowledge.meanings.set(state, meaning.replaceAll("`", ""));
  }
  for (const view of ["client", "server"]) {
    const text = await (await fetch(`/api/states?view=${view}`)).text();
    const svg = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    // Ids would be there several times.
    for (const part of $$("title, desc", svg)) part.remove();
    svg.removeAttribute("aria-labelledby");
    knowledge.pictures[view] = svg;
  }
}

class Machine {
  constructor(side, act) {
    this.addrs = ADDRS;
    const fragment = $("#machine-template").content.cloneNode(true);
    this.root = $(".machine", fragment);
    this.side = side;
    this.root.dataset.side = side;
    this.root.setAttribute("aria-label", `The ${side}'s machine`);
    $("h2", this.root).textContent = side === "client" ? "Client" : "Server";
    this.seen = new Set();
    this.diagram();
    this.buttons(act);
  }

  diagram() {
    const picture = knowledge.pictures[this.side];
    if (!picture) return;
    const svg = document.importNode(picture, true);
    // The heads of arrows are found by their ids, which are there once per picture.
    const own = `${this.side}-${Math.random().toString(36).slice(2)}`;
    for (const marker of $$("marker", svg)) marker.id = `${marker.id}-${own}`;
    for (const path of $$("[marker-end]", svg)) {
      path.setAttribute("marker-end", path.getAttribute("marker-end").replace(")", `-${own})`));
    }
    $(".diagram", this.root).replaceChildren(svg);
    if (matchMedia("(max-width: 44rem)").matches) $(".diagram-box", this.root).open = false;
    $(".enlarge", this.root).addEventListener("click", () => {
      const large = svg.cloneNode(true);
      $("#large .diagram").replaceChildren(large);
      $("#large").showModal();
    });
  }

  buttons(act) {
    const row = $(".actions", this.root);
    row.setAttribute("aria-label", `What the ${this.side} can do`);
    for (const [verb, label, key] of ACTIONS) {
      const shown = this.side === "server" ? key.toUpperCase() : key;
      const button = make("button", {
        type: "button", text: label, "data-action": verb, title: `${HINTS[verb]} Key: ${shown}`,
        className: BLOWS.includes(verb) ? "blow" : "",
      });
      button.addEventListener("click", () => act(this.side, this.verb(verb)));
      row.append(button);
      if (verb === "write") {
        this.size = make("input", {
          type: "number", min: 1, max: 1 << 20, value: 5, step: "any", "aria-label": "How many bytes to write",
        });
        row.append(this.size);
      }
    }
    const more = $(".more-actions", this.root);
    for (const [verb, label] of MORE) {
      const button = make("button", {
        type: "button", text: label, "data-action": verb, className: BLOWS.includes(verb) ? "blow" : "",
      });
      button.addEventListener("click", () => act(this.side, verb));
      more.append(button);
    }
  }

  verb(name) {
    return name === "write" ? `write ${this.size.value}` : name;
  }

  /** Shows how the side stands at this time. `seen`: the states that it was in. */
  show(now, seen, at) {
    const set = (selector, text) => {
      const element = $(selector, this.root);
      if (element.textContent !== text) element.textContent = text;
    };
    this.root.dataset.state = now.state;
    this.root.classList.toggle("no-power", now.program === "no power");
    const isGone = now.program !== "runs" && now.program !== "frozen";
    this.root.classList.toggle("gone", isGone);
    set(".state", now.state);
    const listens = this.side === "server" && now.state === "Created";
    set(".meaning", isGone ? "This was its state. There is no program any more: only its kernel answers."
      : listens ? "It listens. No connection was accepted yet." : knowledge.meanings.get(now.state) ?? "");
    set(".badge", now.is_paused && now.program === "runs" ? "paused" : "");
    const fates = {
      runs: "runs", over: "has called close(2), or died", frozen: "is frozen", "no power": "has no power",
    };
    set(".program", fates[now.program] ?? now.program);
    $("meter", this.root).value = now.queued;
    set(".queued", bytes(now.queued));
    set(".moved", `${now.read.toLocaleString("en")} read, ${now.written.toLocaleString("en")} written`);
    set(".timer", now.timer ? `${now.timer} in ${span(now.timer_at_us - at)}` : "none");
    const first = this.side === "server" && now.state === "Created" ? "LISTEN" : "CLOSED";
    const kernel = now.kernel ?? { state: first, unread: 0, unacked: 0 };
    // The run is over before TIME-WAIT is.
    const isForgotten = kernel.until_us && kernel.until_us <= at;
    const left = kernel.until_us && !isForgotten ? `, for ${span(kernel.until_us - at)}` : "";
    const hasFin = ["CLOSE-WAIT", "CLOSING", "LAST-ACK"].includes(kernel.state);
    const queues = `${kernel.unread ? `, ${kernel.unread} unread${hasFin ? " (the FIN counts as 1)" : ""}` : ""}` +
      `${kernel.unacked ? `, ${kernel.unacked} unacked` : ""}`;
    set(".kernel", isForgotten ? "CLOSED" : `${kernel.state}${queues}${left}`);
    set(".ss", isForgotten || kernel.state === "CLOSED" ? "(no line)" : this.ss(kernel));
    for (const state of $$(".state[data-name], g[data-name]", this.root)) {
      state.classList.toggle("lit", state.dataset.name === now.state);
      state.classList.toggle("seen", seen.has(state.dataset.name));
    }
  }

  ss(kernel) {
    // ss(8) has names of its own.
    const names = { ESTABLISHED: "ESTAB", "SYN-RECEIVED": "SYN-RECV" };
    const { client, server } = this.addrs;
    const [own, other] = this.side === "client" ? [client, server] : [server, client];
    if (kernel.state === "LISTEN") return `LISTEN 0 4096 ${server} 0.0.0.0:*`;
    return `${names[kernel.state] ?? kernel.state} ${kernel.unread} ${kernel.unacked} ${own} ${other}`;
  }
}

// --- a stage: two machines and the ladder between them

const NOTHING = {
  title: "", rows: [], steps: [], moments: [], sides: [], end_us: 0, lost: 0,
};
/** Those of the simulated machines. */
const ADDRS = { client: "10.0.0.2:32768", server: "10.0.0.1:80" };
const AT_FIRST = {
  state: "Created", program: "runs", is_paused: false, queued: 0, read: 0, written: 0, timer: null,
  timer_at_us: null, kernel: null,
};

class Stage {
  /** `act`: what a button does; null if there are none. */
  constructor(act, label = "") {
    const fragment = $("#stage-template").content.cloneNode(true);
    this.root = $(".stage", fragment);
    this.machines = {};
    for (const side of ["client", "server"]) {
      const machine = new Machine(side, act ?? (() => {}));
      if (!act) for (const part of $$(".actions, .more", machine.root)) part.remove();
      this.machines[side] = machine;
      this.root.append(machine.root);
    }
    const heading = $(".stage-label", this.root);
    heading.textContent = label;
    heading.hidden = !label;
    this.heading = heading;
    this.list = $("[data-ladder]", this.root);
    this.load(NOTHING);
  }

  /** `differing`: the rows that another story does not have. */
  load(ladder, differing = []) {
    this.ladder = ladder;
    this.differing = new Set(differing);
    this.moments = { client: [], server: [] };
    for (const moment of ladder.moments) this.moments[moment.side].push(moment);
    const peerOf = (name) => ladder.rows.find((row) => row.name === name && row.peer)?.peer;
    const addrs = { client: peerOf("accept") ?? ADDRS.client, server: peerOf("connect") ?? ADDRS.server };
    for (const machine of Object.values(this.machines)) machine.addrs = addrs;
    this.list.replaceChildren();
    this.shown = 0;
  }

  /** Shows this many rows, and the machines as they are then, at this time. */
  show(count, at) {
    while (this.shown > count) {
      this.list.lastElementChild.remove();
      this.shown -= 1;
    }
    const fragment = document.createDocumentFragment();
    while (this.shown < count) {
      fragment.append(this.row(this.shown));
      this.shown += 1;
    }
    this.list.append(fragment);
    $(".newest", this.list)?.classList.remove("newest");
    const last = this.list.lastElementChild;
    if (last) {
      last.classList.add("newest");
      this.list.scrollTop = this.list.scrollHeight;
    }
    for (const side of ["client", "server"]) {
      const until = this.moments[side].filter((moment) => moment.rows - this.ladder.lost <= count);
      const seen = new Set(until.map((moment) => moment.state));
      this.machines[side].show(until.at(-1) ?? AT_FIRST, seen, at);
    }
    const isConnecting = this.ladder.steps.some((step) => step.at_us <= at && step.text.includes("client connect"));
    const connect = $("[data-action=connect]", this.machines.client.root);
    if (connect) connect.disabled = isConnecting && count > 0;
    const isOver = count === this.ladder.rows.length && count > 0;
    $(".ladder-end", this.root).textContent = isOver ? this.endings() : "";
  }

  endings() {
    const end = (side) => `${side.side}: ${side.ending ?? "not over"}.`;
    const lost = this.ladder.lost ? `${this.ladder.lost} earlier rows were not kept. ` : "";
    return lost + this.ladder.sides.map(end).join(" ");
  }

  row(index) {
    const row = this.ladder.rows[index];
    const isNew = index === 0 || this.ladder.rows[index - 1].at_us !== row.at_us;
    const isLost = row.kind === "packet" && row.arrives_us === null;
    const kind = row.kind === "call" && row.error ? "error" : row.kind;
    const ofWire = row.kind === "action" && /^(network|wait) /.test(row.text) ? " wire" : "";
    const item = make("li", {
      className: `${kind}${ofWire} ${row.side}${isLost ? " lost" : ""}${this.differing.has(index) ? " differs" : ""}`,
    });
    item.append(make("span", { className: "time", text: isNew ? time(row.at_us) : "" }));
    const line = make("span", { className: "line" });
    if (row.kind === "packet") {
      const head = isLost ? "✕" : row.side === "client" ? "▶" : "◀";
      line.append(make("span", { text: row.line }));
      line.append(make("span", { className: "arrow", text: head, "aria-hidden": "true" }));
      item.append(make("span", { className: "line-side", hidden: "", text: `${row.side} sends` }));
    } else {
      line.textContent = row.line;
    }
    item.append(line);
    return item;
  }
}

// --- the player: one clock for all stages

const player = {
  stages: [],
  /** The rows of all stages in the order of time: [time, stage]. */
  places: [],
  /** How many of them are shown, and the time, which may be later than the last of them. */
  place: 0,
  at: 0,
  /** When the last step of the script is over: after the last row, if that is a wait. */
  end: 0,
  timer: null,
  watch: () => {},

  load(stages) {
    this.stop();
    this.stages = stages;
    this.places = [];
    stages.forEach((stage, index) => {
      for (const row of stage.ladder.rows) this.places.push([row.at_us, index]);
    });
    this.places.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
    this.end = Math.max(0, ...stages.map((stage) => stage.ladder.steps.at(-1)?.until_us ?? 0));
    const slider = $("[data-control=time]");
    slider.max = this.places.length;
    this.go(0);
  },

  /** The first place after everything that happens up to this time. */
  after(us) {
    const place = this.places.findIndex(([at]) => at > us);
    return place < 0 ? this.places.length : place;
  },

  go(place, at = null) {
    this.place = Math.max(0, Math.min(place, this.places.length));
    const last = this.place > 0 ? this.places[this.place - 1][0] : 0;
    this.at = at ?? (this.place === this.places.length ? Math.max(last, this.end) : last);
    this.show();
  },

  show() {
    const counts = this.stages.map(() => 0);
    for (const [, stage] of this.places.slice(0, this.place)) counts[stage] += 1;
    this.stages.forEach((stage, index) => stage.show(counts[index], this.at));
    const slider = $("[data-control=time]");
    slider.value = this.place;
    slider.setAttribute("aria-valuetext", `${time(this.at)}, row ${this.place} of ${this.places.length}`);
    const next = this.places[this.place];
    $("#clock").textContent = time(this.at) + (next && next[0] > this.at ? `, next row at ${time(next[0])}` : "");
    this.watch();
  },

  /** What the newest row says, for the live region. */
  tell() {
    if (this.place === 0) return say("At the beginning.");
    const [, stage] = this.places[this.place - 1];
    const count = this.places.slice(0, this.place).filter(([, other]) => other === stage).length;
    const row = this.stages[stage].ladder.rows[count - 1];
    say(`${time(row.at_us)}, ${row.side}: ${row.line}`);
  },

  isPlaying() {
    return this.timer !== null;
  },

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    $("[data-control=play]").textContent = "Play";
    $("#said").setAttribute("aria-live", "polite");
  },

  /** Plays up to this place, and the clock up to this time. */
  play(until = this.places.length, lastAt = null) {
    this.stop();
    if (until === this.places.length && lastAt === null && this.place >= until) this.go(0);
    $("[data-control=play]").textContent = "Stop";
    // A screen reader speaks slower than rows come. At the end it reads the last one.
    if ($("#speed").value !== "slow") $("#said").setAttribute("aria-live", "off");
    this.tick(until, lastAt);
  },

  tick(until, lastAt) {
    if (this.place >= until) {
      if (lastAt !== null && lastAt > this.at) this.go(until, lastAt);
      this.stop();
      return this.tell();
    }
    const next = this.places[this.place][0];
    const gap = next - this.at;
    const pace = $("#speed").value;
    if (pace === "jump") {
      this.go(until, lastAt);
      this.stop();
      return this.tell();
    }
    const wait = PACES[pace](gap);
    const began = performance.now();
    const from = this.at;
    const frame = () => {
      const part = wait > 0 ? (performance.now() - began) / wait : 1;
      if (part >= 1) {
        this.go(this.place + 1);
        this.tell();
        return this.tick(until, lastAt);
      }
      // The timers run down while nothing happens.
      if (gap > STEP_US) {
        this.at = from + gap * part;
        this.show();
      }
      this.timer = setTimeout(frame, Math.min(40, wait * (1 - part)));
    };
    this.timer = setTimeout(frame, Math.min(40, wait));
  },
};

// --- free play

const free = {
  script: "", stage: null, isBusy: false,
  /** What was pressed is done in its order. */
  presses: Promise.resolve(),
  /** The runs before the present one: the script, and the time that was shown. */
  undo: [],
  /** Grows when something else is shown. */
  epoch: 0,
  realRuns: 0,
};

/** The steps of a run that have begun at this time, and from when on another can follow. */
function begun(ladder, at) {
  // Rewound: nothing has begun, but what was set before the connection stays.
  const isAtFirst = player.place === 0 && at === 0 && !player.isPlaying();
  const all = ladder.steps.filter((step) => step.at_us <= at && (!isAtFirst || / set /.test(step.text)));
  const steps = all.map((step) => step.text);
  const last = all.at(-1);
  if (!last) return { steps, next: 0 };
  if (at >= last.until_us || !last.text.startsWith("wait ")) return { steps, next: last.until_us };
  // A wait that is under way ends here.
  steps.pop();
  return { steps: at > last.at_us ? [...steps, `wait ${at - last.at_us}us`] : steps, next: at };
}

/** Adds an action at the present time, after those that were pressed before it. */
function act(text) {
  if (location.hash.startsWith("#scenario=")) leaveScenario();
  const { epoch } = free;
  free.presses = free.presses.then(() => (epoch === free.epoch ? press(text) : undefined));
}

/** Keeps the present run for Undo. */
function keep() {
  free.undo.push({ script: free.script, at: Math.ceil(player.at) });
  $("#undo").disabled = free.undo.length === 0;
}

async function undo() {
  const before = free.undo.pop();
  $("#undo").disabled = free.undo.length === 0;
  if (!before) return;
  if (!before.script) return newConnection();
  await playScript(before.script, before.at, true);
}

/** Something else than a press begins another run: of this script, or none. */
function another(run) {
  if (location.hash.startsWith("#scenario=")) leaveScenario();
  keep();
  return run();
}

/** Settings come before the connection. */
function setFirst(settings) {
  another(() => playScript([settings, free.script].filter(Boolean).join("; ")));
}

function press(text) {
  keep();
  // While it plays, a time between two rows has a fraction.
  const at = Math.ceil(player.at);
  const { steps, next } = begun(free.stage.ladder, at);
  if (at > next) steps.push(`wait ${at - next}us`);
  return playScript([...steps, text].join("; "), Math.max(at, next));
}

/** The page shows something else: answers and presses of before do not count any more. */
function turnPage() {
  free.epoch += 1;
  free.presses = Promise.resolve();
  free.isBusy = false;
}

/**
 * Has a script played, and shows it up to its end, or the step that begins at this time.
 * `stays`: shows what was there at this time, and plays nothing.
 */
async function playScript(script, from = null, stays = false) {
  if (from === null || stays) turnPage();
  const { epoch } = free;
  free.isBusy = true;
  try {
    const ladder = await get(`/api/run?${query({ script })}`);
    if (epoch !== free.epoch) return;
    free.script = ladder.title;
    free.stage.load(ladder);
    showScript();
    player.load([free.stage]);
    $("#real-run").hidden = true;
    if (from === null) {
      player.play();
      return;
    }
    if (stays) {
      player.go(player.after(from), from);
      player.tell();
      return;
    }
    const before = player.places.findIndex(([at]) => at >= from);
    player.go(before < 0 ? player.places.length : before, from);
    player.play(player.after(player.end), player.end);
  } catch (error) {
    if (epoch === free.epoch) say(error.message, true);
  } finally {
    if (epoch === free.epoch) free.isBusy = false;
  }
}

function showScript() {
  $("#script").value = free.script.replaceAll("; ", ";\n");
  $("#script").rows = Math.min(10, Math.max(3, free.script.split("; ").length));
  $("#test").href = `/api/test?${query({ script: free.script || "client connect" })}`;
  if (!location.hash.startsWith("#scenario=")) {
    const hash = free.script ? `#script=${encodeURIComponent(free.script)}` : "#free";
    history.replaceState(null, "", hash);
    // Who comes back from the questions finds this run again.
    $("[data-part=free]").setAttribute("href", hash);
  }
}

function newConnection() {
  turnPage();
  free.script = "";
  free.stage.load(NOTHING);
  player.load([free.stage]);
  $("#real-run").hidden = true;
  showScript();
  say("A server listens. Press Connect on the client's machine.");
}

async function runReal() {
  const script = $("#script").value.trim() || free.script;
  const section = $("#real-run");
  const said = $("#real-said");
  const turn = free.realRuns += 1;
  const { epoch } = free;
  const isOld = () => turn !== free.realRuns || epoch !== free.epoch;
  section.hidden = false;
  said.classList.remove("wrong");
  said.textContent = "It runs on two sockets of this machine, in real time.";
  $("#real-stage").replaceChildren();
  section.scrollIntoView({ block: "nearest" });
  try {
    const { simulated, real, only_simulated, only_real } = await get(`/api/real?${query({ script })}`);
    if (isOld()) return;
    const stage = new Stage(null);
    stage.load(real, only_real);
    $("#real-stage").replaceChildren(stage.root);
    stage.show(real.rows.length, real.end_us);
    const count = only_simulated.length + only_real.length;
    const isOver = real.sides.every(({ ending }) => ending);
    said.textContent = count === 0
      ? `Both stories are the same: each transition and each ending${isOver ? "" : ", as long as it was watched"}.`
      : `The stories differ in ${count} ${count === 1 ? "row" : "rows"}, which are marked in both ladders.`;
    said.textContent += " The packets of a real kernel are not seen.";
    // The simulated one above is marked too.
    const { place, at } = player;
    const isShown = simulated.title === free.stage.ladder.title;
    free.stage.load(simulated, only_simulated);
    free.script = simulated.title;
    player.load([free.stage]);
    player.go(isShown ? place : player.places.length, isShown ? at : null);
  } catch (error) {
    if (isOld()) return;
    said.textContent = error.message;
    said.classList.add("wrong");
  }
}

// --- guided runs

const guide = { all: [], scenario: null, choice: null, stages: [] };
const GROUPS = {
  question: "24 questions about the end of a connection",
  lesson: "The lesson", crash: "Four ways to crash", ending: "Endings side by side",
};

function listScenarios() {
  const root = $("#scenarios");
  for (const [group, title] of Object.entries(GROUPS)) {
    root.append(make("h2", { text: title }));
    const list = make("ul");
    for (const { name, title: text } of guide.all.filter((one) => one.group === group)) {
      const number = /^q(\d+)$/.exec(name);
      const link = make("a", {
        href: `#scenario=${name}`, "data-scenario": name, text: number ? `${Number(number[1])}. ${text}` : text,
      });
      list.append(make("li", {}, link));
    }
    root.append(list);
  }
}

async function openScenario(name) {
  const { epoch } = free;
  const index = guide.all.findIndex((scenario) => scenario.name === name);
  const scenario = guide.all[index];
  if (!scenario) {
    for (const part of ["#guide", "#guide-notes"]) $(part).hidden = true;
    openFree("");
    return say(`There is no guided run ${name}.`, true);
  }
  Object.assign(guide, { scenario, choice: null });
  $("#guide-title").textContent = scenario.title;
  $("#guide-text").replaceChildren(...rich("p", scenario.text).childNodes);
  $("#guide-ask legend").replaceChildren(...rich("p", scenario.ask).childNodes);
  $("#guide-choices").replaceChildren(...scenario.choices.map(choice));
  $("#guide-answer").hidden = true;
  $("#guide-watch").replaceChildren();
  const neighbour = (link, at) => {
    const other = guide.all[at];
    $(link).hidden = !other;
    if (other) $(link).href = `#scenario=${other.name}`;
  };
  neighbour("#previous", index - 1);
  neighbour("#following", index + 1);
  try {
    const ladders = await Promise.all(scenario.run.map(({ script }) => get(`/api/run?${query({ script })}`)));
    if (epoch !== free.epoch) return;
    guide.stages = ladders.map((ladder, at) => {
      const press = ladders.length === 1 ? (side, verb) => act(`${side} ${verb}`) : null;
      const stage = new Stage(press, scenario.run[at].label);
      stage.load(ladder);
      return stage;
    });
    if (ladders.length === 1) [free.stage] = guide.stages;
    free.script = ladders[0].title;
    showStages(guide.stages);
    player.load(guide.stages);
    player.watch = watch;
    showScript();
    say("Ready. Say what you expect, and play.");
    window.scrollTo(0, 0);
    $("#guide-title").focus({ preventScroll: true });
  } catch (error) {
    if (epoch === free.epoch) say(error.message, true);
  }
}

function choice(text, at) {
  const input = make("input", { type: "radio", name: "choice", value: at });
  input.addEventListener("change", () => { guide.choice = at; });
  return make("label", {}, input, " ", ...rich("span", text).childNodes);
}

/** Shows the notes of the steps that have begun, run by run, and at the end the answer. */
function watch() {
  const { scenario } = guide;
  if (!scenario) return;
  const notes = [];
  scenario.run.forEach(({ label, watch: all }, at) => {
    const { steps } = guide.stages[at].ladder;
    for (const { step, text } of all) {
      // A note on a wait says what has come of it.
      const { text: done, at_us, until_us } = steps[step - 1];
      const from = done.startsWith("wait ") ? until_us : at_us;
      if (player.place > 0 && player.at >= from) notes.push({ from, text, label });
    }
  });
  const list = $("#guide-watch");
  if (list.childElementCount !== notes.length) {
    const newest = Math.max(...notes.map(({ from }) => from));
    list.replaceChildren(...notes.map(({ from, text, label }) => {
      const item = rich("li", text, { className: from === newest ? "newest" : "" });
      item.prepend(make("b", { text: `${scenario.run.length > 1 ? `${label}, ` : ""}${time(from)}: ` }));
      return item;
    }));
    // Only the list moves, not the page.
    list.scrollTop = $(".newest", list)?.offsetTop ?? 0;
  }
  if (player.place === player.places.length && player.place > 0 && $("#guide-answer").hidden) answer(scenario);
}

function answer(scenario) {
  const right = scenario.choices[scenario.answer];
  const verdict = guide.choice === null
    ? rich("p", `The answer: ${right}`)
    : guide.choice === scenario.answer
      ? rich("p", `As you expected: ${right}`, { className: "right" })
      : rich("p", `Not “${scenario.choices[guide.choice]}”, but: ${right}`, { className: "wrong" });
  const parts = [verdict, ...scenario.explain.trim().split("\n\n").map((text) => rich("p", text))];
  if (scenario.ss.length > 0) {
    const options = scenario.ss.some((line) => line.includes("users:")) ? "ss -tanp" : "ss -tano";
    parts.push(make("p", { text: `What ${options} prints of it at work:` }));
    parts.push(make("pre", { text: scenario.ss.join("\n"), tabindex: "0" }));
  }
  parts.push(make("p", { text: `Source: ${scenario.source}` }));
  if (scenario.run.length === 1) {
    parts.push(make("p", { text: "The buttons of both machines continue from any moment of this run." }));
  }
  $("#guide-answer").replaceChildren(...parts);
  $("#guide-answer").hidden = false;
  $("#guide-notes").scrollIntoView();
}

function showStages(stages) {
  const root = $("#stages");
  root.replaceChildren(...stages.map((stage) => stage.root));
  root.classList.toggle("two", stages.length === 2);
  const isTwo = stages.length === 2;
  for (const part of ["#network", "#script-box"]) $(part).hidden = isTwo;
  if (isTwo) for (const box of $$(".diagram-box", root)) box.open = false;
  if (!isTwo) return;
  for (const { heading, ladder } of stages) {
    heading.append(make("a", { href: `#script=${encodeURIComponent(ladder.title)}`, text: "open in free play" }));
  }
}

/** A button was pressed during a guided run: it becomes a run of its own. */
function leaveScenario() {
  turnPage();
  guide.scenario = null;
  player.watch = () => {};
  for (const part of ["#guide", "#guide-notes"]) $(part).hidden = true;
  history.pushState(null, "", "#free");
  mark("free");
}

// --- load

const load = { timer: null };
const CHARTS = [
  ["Connections a second", "rate", null],
  ["Latency in µs: median, and 99 % dashed", "p50_us", "p99_us"],
  ["CPU per connection in µs, both sides", "cpu_us", null],
];

async function showLoad() {
  clearTimeout(load.timer);
  const said = $("#load-said");
  try {
    const view = await get("/api/load");
    drawLoad(view);
    // A count that grows is not read aloud each time.
    said.setAttribute("aria-live", view.is_running && said.textContent.startsWith("Running") ? "off" : "polite");
    said.classList.toggle("wrong", Boolean(view.failure));
    said.textContent = view.failure ? `It failed: ${view.failure}` : view.is_running
      ? `Running: ${view.closed.toLocaleString("en")} connections so far.`
      : view.closed ? `Over: ${view.closed.toLocaleString("en")} connections.` : "Nothing runs.";
  } catch (error) {
    said.textContent = error.message;
    said.classList.add("wrong");
  }
  // Another look may have begun meanwhile.
  clearTimeout(load.timer);
  if (!$("#load").hidden) load.timer = setTimeout(showLoad, 400);
}

function drawLoad(view) {
  $("#load-charts").replaceChildren(...CHARTS.map(([title, first, second]) => {
    const names = second ? [first, second] : [first];
    const most = Math.max(1, ...view.samples.flatMap((sample) => names.map((name) => sample[name])));
    const last = view.samples.at(-1);
    const now = last ? names.map((name) => Math.round(last[name]).toLocaleString("en")).join(" and ") : "—";
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 100");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    names.forEach((name, at) => {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
      const x = (index) => (view.samples.length > 1 ? (index * 100) / (view.samples.length - 1) : 50);
      const point = (sample, index) => `${x(index)},${98 - (sample[name] * 96) / most}`;
      line.setAttribute("points", view.samples.map(point).join(" "));
      if (at > 0) line.setAttribute("class", "second");
      svg.append(line);
    });
    const caption = `${title}: ${now} (most: ${Math.round(most).toLocaleString("en")})`;
    return make("figure", {}, make("figcaption", { text: caption }), svg);
  }));
  const rows = (selector, entries) => $(`${selector} tbody`).replaceChildren(...entries.map(([name, count]) =>
    make("tr", {}, make("td", { text: name }), make("td", { text: count.toLocaleString("en") }))));
  rows("#load-live", Object.entries(view.samples.at(-1)?.live ?? {}));
  rows("#load-endings", Object.entries(view.endings));
}

async function startLoad(event) {
  event.preventDefault();
  const values = {
    connections: $("#load-connections").value, bytes: $("#load-bytes").value, seconds: $("#load-seconds").value,
  };
  try {
    await get(`/api/load?${query(values)}`, { method: "POST" });
    await showLoad();
  } catch (error) {
    $("#load-said").textContent = error.message;
    $("#load-said").classList.add("wrong");
  }
}

// --- the page

function mark(part) {
  for (const link of $$("[data-part]")) {
    if (link.dataset.part === part) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** Shows what the address names. */
async function route() {
  const hash = location.hash.slice(1);
  const [begin, value = ""] = hash.split(/=(.*)/s);
  const name = ["guided", "scenario", "load", "script"].includes(begin) ? begin : "free";
  const part = name === "load" ? "load" : ["guided", "scenario"].includes(name) ? "guided" : "free";
  turnPage();
  player.stop();
  mark(part);
  $("#guided").hidden = name === "load";
  for (const part of ["#guide", "#guide-notes"]) $(part).hidden = name !== "scenario";
  $("#lab").hidden = part === "load" || name === "guided";
  $("#real-run").hidden = true;
  $("#load").hidden = name !== "load";
  if (name === "load") return showLoad();
  if (name === "scenario") return openScenario(value);
  if (name === "guided") return undefined;
  return openFree(name === "script" ? value : "");
}

/** Two machines with buttons, and the run of the address if it has one. */
function openFree(value) {
  guide.scenario = null;
  player.watch = () => {};
  free.stage = new Stage((side, verb) => act(`${side} ${verb}`));
  showStages([free.stage]);
  // The link that was copied has the time at which that was done.
  const [written, at] = value.split("&at=");
  let script = "";
  try {
    script = decodeURIComponent(written);
  } catch {
    say("The address has no script that can be read.", true);
  }
  if (!script) return newConnection();
  free.script = script;
  $("#script").value = script;
  player.load([free.stage]);
  return at === undefined ? playScript(script) : playScript(script, Number(at) || 0, true);
}

function keys(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || $("#lab").hidden) return;
  if (event.target.closest("input, select, textarea, summary, a, [contenteditable]")) return;
  const control = { " ": "play", ArrowRight: "step", ArrowLeft: "back", Home: "rewind" }[event.key];
  if (control) {
    // The space bar presses the button that has the focus.
    if (event.key === " " && event.target.closest("button")) return;
    event.preventDefault();
    $(`[data-control=${control}]`).click();
    return;
  }
  const action = ACTIONS.find(([, , key]) => key === event.key.toLowerCase());
  if (action && event.key.length === 1 && !event.repeat) {
    const side = event.key === event.key.toLowerCase() ? "client" : "server";
    $(`#stages [data-side=${side}] [data-action=${action[0]}]`)?.click();
  }
}

function listen() {
  const controls = {
    rewind: () => { player.stop(); player.go(0); player.tell(); },
    back: () => { player.stop(); player.go(player.place - 1); player.tell(); },
    step: () => { player.stop(); player.go(player.place + 1); player.tell(); },
    play: () => (player.isPlaying() ? player.stop() : player.play()),
  };
  for (const [name, run] of Object.entries(controls)) $(`[data-control=${name}]`).addEventListener("click", run);
  $("[data-control=time]").addEventListener("input", (event) => {
    player.stop();
    player.go(Number(event.target.value));
    player.tell();
  });
  for (const button of $$("[data-network]")) {
    button.addEventListener("click", () => act(`network ${button.dataset.network}`));
  }
  $("#delay").addEventListener("change", (event) => act(`network delay ${event.target.value}`));
  $("#do-wait").addEventListener("click", () => act(`wait ${$("#wait").value.trim()}`));
  $("#run").addEventListener("click", () => another(() => playScript($("#script").value)));
  $("#clear").addEventListener("click", () => another(newConnection));
  $("#copy").addEventListener("click", () => {
    // It opens at this time.
    const link = free.script ? `${location.href}&at=${Math.ceil(player.at)}` : location.href;
    navigator.clipboard.writeText(link).then(() => say("The link is copied."), () => say(`Copy it: ${link}`));
  });
  $("#real").addEventListener("click", runReal);
  $("#setting").addEventListener("submit", (event) => {
    event.preventDefault();
    setFirst(`${$("#set-side").value} set ${$("#set-name").value} ${$("#set-value").value.trim()}`);
  });
  $("#guide-play").addEventListener("click", () => {
    // The machines and the ladder come into view.
    $("#top").scrollIntoView();
    player.play();
  });
  $("#undo").addEventListener("click", undo);
  $("#no-limits").addEventListener("click", () => {
    const off = ["client", "server"].flatMap((side) => ["half-closed-timeout", "ending-timeout", "close-timeout"]
      .map((name) => `${side} set ${name} off`)).join(" + ");
    if (!free.script.includes(off)) setFirst(off);
  });
  $("#load-form").addEventListener("submit", startLoad);
  $("#load-stop").addEventListener("click", () => get("/api/load/stop", { method: "POST" })
    .then(showLoad, showLoad));
  document.addEventListener("keydown", keys);
  window.addEventListener("hashchange", route);
}

async function begin() {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) $("#speed").value = "jump";
  listen();
  try {
    [guide.all] = await Promise.all([get("/api/scenarios"), learn()]);
    listScenarios();
    await route();
  } catch (error) {
    say(error.message, true);
  }
  document.body.dataset.ready = "";
}

begin();
