// Shows the rows of the list of packages that have the words which are typed.
const field = document.querySelector("#filter");
if (field) {
  const rows = Array.from(document.querySelectorAll("#materials tbody tr"));
  const count = document.querySelector("#filtered");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${rows.length}`;
  });
  document.querySelector("#filtering").hidden = false;
}
