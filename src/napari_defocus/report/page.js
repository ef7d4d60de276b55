"use strict";
const table = document.getElementById("fields");
const body = table.tBodies[0];
const search = document.getElementById("search");
const boxes = [...document.querySelectorAll(".tools input[type=checkbox]")];
const shown = document.getElementById("shown");
const rows = [...body.rows];
const value = (row, k) => row.cells[k].dataset.v ?? row.cells[k].textContent.trim();

function sortBy(head) {
  const k = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const order = new Intl.Collator(undefined, { numeric: true });
  rows.sort((a, b) => {
    const [x, y] = [value(a, k), value(b, k)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const found = isNaN(x) || isNaN(y) ? order.compare(x, y) : x - y;
    return down ? -found : found;
  });
  body.append(...rows);
}

function filter() {
  const words = search.value.toLowerCase();
  const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  let count = 0;
  for (const row of rows) {
    row.hidden = !(wanted.has(row.dataset.k) && row.textContent.toLowerCase().includes(words));
    count += !row.hidden;
  }
  shown.textContent = `${count} of ${rows.length}`;
}

for (const head of table.tHead.rows[0].cells) {
  head.addEventListener("click", () => sortBy(head));
  head.addEventListener("keydown", (event) => event.key === "Enter" && sortBy(head));
}
search.addEventListener("input", filter);
for (const box of boxes) box.addEventListener("change", filter);
for (const well of document.querySelectorAll(".well")) {
  well.addEventListener("click", () => {
    search.value = search.value === well.dataset.well ? "" : well.dataset.well;
    filter();
    table.scrollIntoView();
  });
}
filter();
