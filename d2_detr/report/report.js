"use strict";

const sheets = [...document.querySelectorAll(".sheet")];
const controls = document.querySelector(".controls");
const dialog = document.querySelector("dialog");
const ORDERS = {
  mistakes: (a, b) => b.dataset.mistakes - a.dataset.mistakes,
  best: (a, b) => a.dataset.mistakes - b.dataset.mistakes,
  objects: (a, b) => b.dataset.objects - a.dataset.objects,
  name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true }),
};

// ---- gallery: which pictures, in which order

function isWanted(sheet, outcome, label) {
  const ofClass = sheet.dataset.marks.split(" ").filter((mark) => mark && (!label || mark.split(":")[1] === label));
  const mistakes = ofClass.filter((mark) => !/^(found|in_crowd):/.test(mark));
  if (outcome === "mistake") return mistakes.length > 0;
  if (outcome === "none") return mistakes.length === 0 && (!label || ofClass.length > 0);
  if (outcome) return ofClass.some((mark) => mark.startsWith(`${outcome}:`));
  return !label || ofClass.length > 0;
}

let taken = null; // the cell of the table of confusions whose pictures are shown

function arrange() {
  const { class: label, outcome, sort } = Object.fromEntries(new FormData(controls));
  for (const sheet of sheets) {
    const isOfCell = !taken || sheet.dataset.taken.split(" ").includes(taken.dataset.taken);
    sheet.hidden = !isOfCell || !isWanted(sheet, outcome, label);
  }
  controls.taken.hidden = !taken;
  controls.taken.textContent = taken ? `${taken.title} ×` : "";
  document.querySelector(".sheets").append(...[...sheets].sort(ORDERS[sort]));
  const shown = sheets.filter((sheet) => !sheet.hidden).length;
  controls.querySelector("output").value = `${shown} of ${sheets.length} pictures`;
}

if (controls) {
  controls.addEventListener("change", arrange);
  controls.taken.addEventListener("click", () => {
    taken = null;
    arrange();
  });
  for (const cell of document.querySelectorAll(".confusion button")) {
    cell.addEventListener("click", () => {
      taken = cell;
      controls.reset();
      arrange();
      controls.scrollIntoView();
    });
  }
  arrange();
}

// ---- enlarging a picture

let enlarged = null;

function enlarge(sheet) {
  enlarged = sheet;
  dialog.querySelector("h3").textContent = sheet.dataset.name;
  const [counts, pair] = [".counts", ".pair"].map((name) => sheet.querySelector(name).cloneNode(true));
  for (const name of ["role", "tabindex", "aria-label"]) pair.removeAttribute(name);
  dialog.querySelector(".content").replaceChildren(counts, pair);
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  const shown = [...document.querySelectorAll(".sheet:not([hidden])")];
  enlarge(shown[(shown.indexOf(enlarged) + by + shown.length) % shown.length]);
}

for (const sheet of sheets) {
  const pair = sheet.querySelector(".pair");
  pair.addEventListener("click", () => enlarge(sheet));
  pair.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    enlarge(sheet);
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

// ---- tables: sorted by the column that is clicked, the first row (of all classes) staying on top

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
