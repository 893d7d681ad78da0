// The scheme that the visitor chose before, set before anything is drawn; without a choice, the system's.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // inside another site's frame, as in a Space, the browser may forbid to remember
}
