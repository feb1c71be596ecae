// Shows the SVG that Python draws, and tells Python which mark is picked by pointer or keyboard.
function render({ model, el }) {
  el.classList.add("accelsim-chart");
  const marks = () => [...el.querySelectorAll("[data-pick]")];
  const draw = () => {
    const focused = el.contains(document.activeElement) ? document.activeElement.dataset?.pick : null;
    el.innerHTML = model.get("svg");
    const all = marks();
    if (!all.length) return;
    const again = focused ? all.find((m) => m.dataset.pick === focused) : null;
    (again ?? all[0]).setAttribute("tabindex", "0");
    again?.focus();
  };
  const pick = (mark) => {
    model.set("picked", mark.dataset.pick);
    model.set("picks", model.get("picks") + 1);
    model.save_changes();
  };
  el.addEventListener("click", (event) => {
    const mark = event.target.closest("[data-pick]");
    if (mark) pick(mark);
  });
  el.addEventListener("keydown", (event) => {
    const mark = event.target.closest("[data-pick]");
    if (!mark) return;
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key === "Enter" || event.key === " ") pick(mark);
    else if (event.key in steps) {
      const all = marks();
      const next = all[(all.indexOf(mark) + steps[event.key] + all.length) % all.length];
      mark.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    } else return;
    // The notebook around would take arrows and Enter as its own commands.
    event.preventDefault();
    event.stopPropagation();
  });
  model.on("change:svg", draw);
  draw();
}
export default { render };
