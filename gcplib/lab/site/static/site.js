// One button hides the code of a notebook, for those who came for its text and figures.
document.addEventListener("DOMContentLoaded", () => {
  const code = document.querySelectorAll(".cell > details.code[open]");
  const title = document.querySelector("article h1");
  if (!code.length || !title) return;
  const button = document.createElement("button");
  button.className = "hide-code";
  button.textContent = "Hide all code";
  button.addEventListener("click", () => {
    const open = button.textContent.startsWith("Show");
    code.forEach((one) => { one.open = open; });
    button.textContent = open ? "Hide all code" : "Show all code";
  });
  title.after(button);
});
