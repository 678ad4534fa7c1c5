"use strict";
for (const viewer of document.querySelectorAll(".viewer")) {
  const frame = viewer.querySelector(".frame");
  const slider = viewer.querySelector("input");
  const number = viewer.querySelector("output");
  const buttons = [...viewer.querySelectorAll("button")];

  const show = () => {
    const last = Number(slider.max);
    frame.style.backgroundPositionY = `${last ? (100 * slider.value) / last : 0}%`;
    number.value = `${Number(slider.value) + 1} / ${last + 1}`;
  };
  const choose = (button) => {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    frame.style.backgroundImage = `var(--${button.dataset.plane})`;
    frame.style.aspectRatio = button.dataset.aspect;
    slider.max = button.dataset.frames - 1;
    slider.value = Math.floor(slider.max / 2);
    show();
  };
  for (const button of buttons) button.addEventListener("click", () => choose(button));
  slider.addEventListener("input", show);
  choose(buttons[0]);
}
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
