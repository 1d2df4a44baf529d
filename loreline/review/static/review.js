// Keys, long texts, and keeping an item open. Without this file the page works by hand.
"use strict";

const verdict = document.getElementById("verdict");

function say(text) {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  notice.hidden = false;
  notice.scrollIntoView({ block: "nearest" });
}

function isWriting(target) {
  return target.matches("textarea, input:not([type=radio]):not([type=checkbox])");
}

function problem() {
  const chosen = (name) => verdict.querySelector(`input[name=${name}]:checked`);
  if (verdict.querySelector("[name=score]")) return chosen("score") ? "" : "Give a score: 1 to 5.";
  if (!chosen("preferred")) return "Say which one is better: a, b or t.";
  if (chosen("preferred").value !== "tie" && !chosen("strength")) return "Say by how much: 1, 2 or 3.";
  return "";
}

function press(button) {
  verdict.requestSubmit(button);
}

function choose(input) {
  input.checked = input.type === "radio" || !input.checked;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

function step(by) {
  const all = [...document.querySelectorAll(".message")].filter((each) => each.offsetParent);
  const now = all.findIndex((each) => each.classList.contains("current"));
  const next = all[Math.min(Math.max(now + by, 0), all.length - 1)];
  if (!next) return;
  if (now >= 0) all[now].classList.remove("current");
  next.classList.add("current");
  next.scrollIntoView({ block: "start" });
}

function onKey(event) {
  const comment = document.getElementById("comment");
  if (isWriting(event.target)) {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && event.ctrlKey && event.target === comment) press(document.getElementById("save"));
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const undo = document.getElementById("undo");
  if (event.key === "u" && undo) {
    event.preventDefault();
    undo.requestSubmit();
  }
  if (!verdict) return;
  const input = verdict.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  const actions = {
    s: () => press(document.getElementById("skip")),
    c: () => comment.focus(),
    j: () => step(1),
    k: () => step(-1),
  };
  if (event.key === "Enter") {
    if (event.target.matches("button, a, summary")) return;
    event.preventDefault();
    press(document.getElementById("save"));
  } else if (input) {
    event.preventDefault();
    choose(input);
  } else if (Object.hasOwn(actions, event.key)) {
    event.preventDefault();
    actions[event.key]();
  }
}

async function showAll(event) {
  const link = event.target.closest("a.more");
  if (!link) return;
  event.preventDefault();
  const answer = await fetch(link.href).catch(() => null);
  if (!answer || !answer.ok) {
    say("The text could not be fetched. Reload the page.");
    return;
  }
  link.parentElement.previousElementSibling.textContent = await answer.text();
  link.parentElement.remove();
}

function onSubmit(event) {
  const isSkip = event.submitter && event.submitter.id === "skip";
  const missing = isSkip ? "" : problem();
  if (missing || verdict.dataset.sent) {
    event.preventDefault();
    if (missing) say(missing);
    return;
  }
  verdict.dataset.sent = "yes";
}

// Somebody who does nothing loses the item to others after a while.
function keepOpen() {
  let isActive = false;
  for (const sign of ["keydown", "pointermove", "scroll", "touchstart"]) {
    addEventListener(sign, () => { isActive = true; }, { passive: true, capture: true });
  }
  setInterval(async () => {
    if (!isActive) return;
    isActive = false;
    const item = verdict.querySelector("[name=item]").value;
    const body = new URLSearchParams({ item });
    const answer = await fetch("/review/renew", { method: "POST", body }).catch(() => null);
    if (answer && answer.status === 409) say("You were away for long. Somebody else may be given this item.");
    if (answer && answer.status === 401) say("You are not logged in any more.");
  }, verdict.dataset.lockSeconds * 1000 / 3);
}

document.addEventListener("keydown", onKey);
document.addEventListener("click", showAll);
// A page that the browser kept is sent again when one comes back to it.
addEventListener("pageshow", () => { if (verdict) delete verdict.dataset.sent; });
if (verdict) {
  verdict.addEventListener("submit", onSubmit);
  keepOpen();
}
