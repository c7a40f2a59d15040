"use strict";
// Everything on the page is read again from the API; the events only say when.

const at = (id) => document.getElementById(id);
let open = null; // The id of the note in the form.
let next = null; // Where the next page of the list begins.

async function call(method, path, body, kind) {
  const options = { method };
  if (body !== undefined) {
    options.body = body;
    options.headers = { "Content-Type": kind };
  }
  const answer = await fetch(path, options);
  if (answer.status === 204) return null;
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}

// Runs what a person has begun, and shows why it has failed.
async function attempt(action) {
  at("message").textContent = "";
  try {
    await action();
  } catch (error) {
    at("message").textContent = error.message;
  }
}

function row(note) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.note = note.id;
  button.textContent = note.title;
  button.addEventListener("click", () => attempt(() => show(note.id)));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function mark() {
  for (const button of at("list").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(Number(button.dataset.note) === open));
  }
}

async function list(before) {
  const page = await call("GET", before ? `api/notes?before=${before}` : "api/notes");
  if (!before) {
    const focused = document.activeElement?.dataset?.note;
    at("list").replaceChildren();
    page.notes.forEach((note) => at("list").append(row(note)));
    at("list").querySelector(`[data-note="${focused}"]`)?.focus();
  } else {
    page.notes.forEach((note) => at("list").append(row(note)));
  }
  next = page.next;
  at("more").hidden = next === null;
  mark();
}

async function show(id) {
  const note = id === null ? { title: "", body: "", attachment: null } : await call("GET", `api/notes/${id}`);
  open = id;
  at("form-title").textContent = id === null ? "New note" : `Note ${id}`;
  at("title").value = note.title;
  at("body").value = note.body;
  at("delete").hidden = id === null;
  at("attachment").hidden = id === null;
  at("file").value = "";
  at("download").hidden = note.attachment === null;
  at("download").textContent = `Attachment (${note.attachment} bytes)`;
  at("download").href = `api/notes/${id}/attachment`;
  mark();
  at("title").focus();
}

async function save() {
  const note = JSON.stringify({ title: at("title").value, body: at("body").value });
  const saved = await call(open === null ? "POST" : "PUT", open === null ? "api/notes" : `api/notes/${open}`, note,
    "application/json");
  await list();
  await show(saved.id);
}

async function remove() {
  await call("DELETE", `api/notes/${open}`);
  await list();
  await show(null);
}

async function attach() {
  const file = at("file").files[0];
  if (!file) return;
  await call("PUT", `api/notes/${open}/attachment`, file, file.type || "application/octet-stream");
  await show(open);
}

at("new").addEventListener("click", () => attempt(() => show(null)));
at("more").addEventListener("click", () => attempt(() => list(next)));
at("delete").addEventListener("click", () => attempt(remove));
at("file").addEventListener("change", () => attempt(attach));
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(save);
});

// The browser connects again by itself, and continues after the last event that it has received.
const events = new EventSource("events");
const state = (text) => { at("state").textContent = text; };
events.addEventListener("hello", () => state("live"));
events.addEventListener("error", () => state("connecting"));
events.addEventListener("bye", () => state("connecting"));
for (const kind of ["hello", "reset", "created", "changed", "deleted"]) {
  events.addEventListener(kind, () => attempt(() => list()));
}
