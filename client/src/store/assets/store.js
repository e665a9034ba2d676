// What pages gain by scripts: results while one types, and rows that change by themselves. Without it, everything works by loading pages.
"use strict";
(() => {
  const box = document.getElementById("q");
  const results = document.getElementById("results");
  if (box && results) {
    const question = new URLSearchParams(location.search).get("q") || "";
    box.value = question;
    let waiting, asked = question;
    box.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(async () => {
        const text = box.value.trim();
        if (text === asked) return;
        asked = text;
        const path = "/search?q=" + encodeURIComponent(text);
        const answer = await fetch(path, { headers: { "X-Fragment": "1" } });
        const found = await answer.text();
        if (!answer.ok || text !== asked) return;
        results.innerHTML = found;
        history.replaceState(null, "", path);
      }, 150);
    });
  }

  const tasks = document.querySelector("[data-live]");
  if (tasks && window.EventSource) {
    const told = document.getElementById("told");
    new EventSource(tasks.dataset.live).addEventListener("rows", (event) => {
      const rows = document.createElement("template");
      rows.innerHTML = event.data;
      for (const row of [...rows.content.children]) {
        const before = document.getElementById(row.id);
        const focused = before && before.contains(document.activeElement) ? document.activeElement.textContent : null;
        if (before) before.replaceWith(row); else tasks.prepend(row);
        if (focused) [...row.querySelectorAll("a, button")].find((one) => one.textContent === focused)?.focus();
        // Each step is told once, in words; how many of a hundred is not.
        if (!before || before.dataset.phase !== row.dataset.phase) {
          told.textContent = row.querySelector("h2").textContent + " : " + row.querySelector(".state").textContent;
        }
      }
      const count = document.querySelector("nav a[aria-current] .count");
      if (count) {
        const left = tasks.querySelectorAll('[data-phase="busy"]').length;
        if (left) count.textContent = left; else count.remove();
      }
    });
  }
})();
