// A watched page loads itself again, but not while a person works on it: that would lose labels, choices and words.

const working = document.getElementById("working");
let touched = false;
for (const kind of ["click", "input", "submit"]) document.addEventListener(kind, () => { touched = true; });
setInterval(() => {
  if (touched || document.activeElement !== document.body) working.hidden = false;
  else location.reload();
}, 1000 * Number(working.dataset.seconds));
