// Keys: "/" goes to the first filter, "r" reads the page again, "?" names the keys. Pages work without this file.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (event.key === "/") {
    const field = document.querySelector('[role="search"] input:not([type="hidden"])');
    if (field) {
      event.preventDefault();
      field.focus();
    }
  } else if (event.key === "r") {
    location.reload();
  } else if (event.key === "?") {
    document.getElementById("help").showModal();
  }
});
