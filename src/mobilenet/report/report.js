"use strict";
// A click on a column's heading sorts its table; a second click reverses it. Cells carry data-value.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const column = heading.cellIndex;
    const text = heading.classList.contains("text");
    const old = heading.getAttribute("aria-sort");
    // Names start at A; figures start at the highest.
    const descending = old ? old === "ascending" : !text;
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = heading.closest("table").tBodies[0];
    const value = (row) => row.cells[column].dataset.value;
    const rows = [...body.rows].sort((a, b) =>
      text ? value(a).localeCompare(value(b), undefined, { numeric: true }) : value(a) - value(b));
    if (descending) rows.reverse();
    body.append(...rows);
  });
}
