"use strict";

const cards = [...document.querySelectorAll(".image-card")];
const controls = document.querySelector(".controls");
const dialog = document.querySelector("dialog");
const ORDERS = {
  worst: (a, b) => b.dataset.errors - a.dataset.errors,
  best: (a, b) => a.dataset.errors - b.dataset.errors,
  objects: (a, b) => b.dataset.objects - a.dataset.objects,
  name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true }),
};

// ---- image cards: filter and sort

function matches(card, outcome, label) {
  const all = card.dataset.outcomes.split(" ").filter((entry) => entry && (!label || entry.split(":")[1] === label));
  const errors = all.filter((entry) => !/^(true_positive|crowd):/.test(entry));
  if (outcome === "error") return errors.length > 0;
  if (outcome === "none") return errors.length === 0 && (!label || all.length > 0);
  if (outcome) return all.some((entry) => entry.startsWith(`${outcome}:`));
  return !label || all.length > 0;
}

let chosenCell = null; // of the confusion table, whose images are shown

function arrange() {
  const { class: label, outcome, sort } = Object.fromEntries(new FormData(controls));
  for (const card of cards) {
    const hasPair = !chosenCell || card.dataset.pairs.split(" ").includes(chosenCell.dataset.pair);
    card.hidden = !hasPair || !matches(card, outcome, label);
  }
  controls.pair.hidden = !chosenCell;
  controls.pair.textContent = chosenCell ? `${chosenCell.title} ×` : "";
  document.querySelector(".image-cards").append(...[...cards].sort(ORDERS[sort]));
  const shown = cards.filter((card) => !card.hidden).length;
  controls.querySelector("output").value = `${shown} of ${cards.length} images`;
}

if (controls) {
  controls.addEventListener("change", arrange);
  controls.pair.addEventListener("click", () => {
    chosenCell = null;
    arrange();
  });
  for (const cell of document.querySelectorAll(".confusion button")) {
    cell.addEventListener("click", () => {
      chosenCell = cell;
      controls.reset();
      arrange();
      controls.scrollIntoView();
    });
  }
  arrange();
}

// ---- enlarged image

let enlarged = null;

function enlarge(card) {
  enlarged = card;
  dialog.querySelector("h3").textContent = card.dataset.name;
  const [counts, overlays] = [".counts", ".overlays"].map((name) => card.querySelector(name).cloneNode(true));
  for (const name of ["role", "tabindex", "aria-label"]) overlays.removeAttribute(name);
  dialog.querySelector(".content").replaceChildren(counts, overlays);
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  const shown = [...document.querySelectorAll(".image-card:not([hidden])")];
  enlarge(shown[(shown.indexOf(enlarged) + by + shown.length) % shown.length]);
}

for (const card of cards) {
  const overlays = card.querySelector(".overlays");
  overlays.addEventListener("click", () => enlarge(card));
  overlays.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    enlarge(card);
  });
}
dialog.addEventListener("click", (event) => {
  const { name } = event.target;
  if (event.target === dialog || name === "close") dialog.close();
  if (name === "previous") step(-1);
  if (name === "next") step(1);
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});

// ---- tables: sort by the clicked column; the first row, of all classes, stays on top

function sortTable(table, column, descending) {
  const [first, ...rows] = table.tBodies[0].rows;
  const text = (row) => row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [a, b].map((row) => parseFloat(text(row)));
    if (column === 0) return text(a).localeCompare(text(b), undefined, { numeric: true });
    return (Number.isNaN(x) ? -1 : x) - (Number.isNaN(y) ? -1 : y);
  };
  rows.sort((a, b) => (descending ? compare(b, a) : compare(a, b)));
  table.tBodies[0].append(first, ...rows);
}

for (const table of document.querySelectorAll(".scores")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.ariaSort !== "descending" && (column > 0 || head.ariaSort === "ascending");
      for (const other of heads) other.ariaSort = "none";
      head.ariaSort = descending ? "descending" : "ascending";
      sortTable(table, column, descending);
    });
  });
}
