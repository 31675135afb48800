// The page's own behaviour: the form's answers, viewers on stages, downloads, keys, dark and light.
"use strict";
window.dreamcad = (() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const picked = name => document.querySelector(`input[name="dc-${name}"]:checked`)?.value ?? "";

  const choice = () => ({model: picked("model"), preset: picked("preset"),
    open: Boolean(document.querySelector(".dc-options")?.open)});

  // What is asked for; called when a button sends it, so a phone is shown the answer's place.
  function form(newSeed = false) {
    if (innerWidth < 700) document.getElementById("dc-progress")?.scrollIntoView();
    const inputs = all("[data-option]");
    const answers = Object.fromEntries(inputs.map(input => [input.dataset.option, input.value]));
    const options = inputs.length ? {options: answers} : {};
    return JSON.stringify({...choice(), new_seed: newSeed, ...options});
  }

  const isDark = () => document.body.classList.contains("dark");
  const backdrop = () => isDark() ? [0.075, 0.09, 0.13] : [0.94, 0.95, 0.97];
  const views = new Map();

  function tool(label, act, pressed) {
    const button = Object.assign(document.createElement("button"), {type: "button", textContent: label});
    if (pressed !== undefined) button.setAttribute("aria-pressed", pressed);
    button.onclick = () => act(button);
    return button;
  }

  function toolbar(view) {
    const bar = document.createElement("div");
    bar.className = "dc-tools";
    bar.setAttribute("role", "toolbar");
    bar.setAttribute("aria-label", "View");
    const looks = [["Shaded", "lit"], ["Wireframe", "wire"], ["Normals", "normals"],
      ...(view.hasUv ? [["UV", "uv"]] : []), [view.hasPicture ? "Texture" : "Colours", "texture"]];
    const buttons = looks.map(([label, look]) => tool(label, self => {
      view.setLook(look);
      buttons.forEach(button => button.setAttribute("aria-pressed", button === self));
    }, look === "lit"));
    const spin = tool("Turntable", self => {
      const on = self.getAttribute("aria-pressed") !== "true";
      self.setAttribute("aria-pressed", on);
      view.setSpin(on);
    }, false);
    bar.append(...buttons, spin, tool("Reset", () => view.reset()));
    return bar;
  }

  async function show(stage) {
    stage.dataset.state = "loading";
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label",
      `3D view of ${stage.dataset.title}. Arrow keys turn it, plus and minus zoom.`);
    stage.replaceChildren(canvas);
    try {
      const answer = await fetch(new URL(stage.dataset.glb, document.baseURI));
      if (!answer.ok) throw new Error(`the file could not be read (${answer.status})`);
      const view = await DreamCadViewer.mount(canvas, await answer.arrayBuffer());
      view.setBackdrop(backdrop());
      views.set(stage, view);
      const count = Object.assign(document.createElement("span"),
        {className: "dc-count", textContent: `${view.faces.toLocaleString("en")} triangles`});
      stage.append(count);
      stage.after(toolbar(view));
      stage.dataset.state = "shown";
    } catch (error) {
      stage.dataset.state = "failed";
      stage.replaceChildren(Object.assign(document.createElement("p"),
        {textContent: `No 3D view: ${error.message}.`}));
    }
  }

  function tidy() {
    for (const [stage, view] of views)
      if (!stage.isConnected) { view.close(); views.delete(stage); }
    all("[data-glb]:not([data-state])").forEach(show);
    // Gradio's label of these differs from the text that is seen on them.
    all("button.upload-container[aria-label]").forEach(button => button.removeAttribute("aria-label"));
    for (const link of all("a[data-follow]")) {
      link.removeAttribute("data-follow");
      link.click();
    }
  }

  function setTheme(dark) {
    document.body.classList.toggle("dark", dark);
    localStorage.setItem("dream-cad-theme", dark ? "dark" : "light");
    views.forEach(view => view.setBackdrop(backdrop()));
  }

  function begin() {
    const kept = localStorage.getItem("dream-cad-theme");
    if (kept) document.body.classList.toggle("dark", kept === "dark");
    new MutationObserver(tidy).observe(document.body, {childList: true, subtree: true});
    document.addEventListener("click", event => {
      if (event.target.closest('[data-act="theme"]')) setTheme(!isDark());
    });
    document.addEventListener("keydown", event => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        document.getElementById("dc-generate")?.click();
      }
    });
    tidy();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
  return {choice, form, views};
})();
