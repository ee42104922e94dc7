// Before the first paint: light or dark as this reader chose, or as the system says.
const chosen = localStorage.getItem("tops-theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
