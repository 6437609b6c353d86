// Sorts tables by a click on a heading, and searches the index. Without it everything can be read all the same.
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = row => row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [Number(value(a)), Number(value(b))];
        const numbers = !Number.isNaN(x) && !Number.isNaN(y);
        return (numbers ? x - y : value(a).localeCompare(value(b))) * (down ? -1 : 1);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
const search = document.querySelector("#search");
if (search) {
  search.closest("[hidden]").hidden = false;
  const rows = [...document.querySelectorAll("#index tbody tr")];
  const status = document.querySelector("#found");
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    }
    status.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} shown`;
  });
}
