// Airflow keeps its theme in localStorage; without a choice there, the system's counts.
const theme = (localStorage.getItem("theme") || "").replaceAll('"', "");
if (["light", "dark"].includes(theme)) document.documentElement.style.colorScheme = theme;
// Airflow's frame may not move the window around it; a link of that window's own may.
addEventListener("click", (event) => {
  const link = event.target.closest("a[target=_top]");
  if (!link || parent === window) return;
  event.preventDefault();
  Object.assign(parent.document.createElement("a"), { href: link.href }).click();
});
