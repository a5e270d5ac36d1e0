"use strict";
(() => {
  const all = (root, query) => [...root.querySelectorAll(query)];
  for (const section of all(document, "section[data-length]")) {
    const length = Number(section.dataset.length);
    const tracks = section.querySelector(".tracks");
    if (!tracks) continue;
    const cursor = tracks.querySelector(".cursor");
    const clock = section.querySelector(".clock");
    const shots = all(section, "figure[data-time]");
    const point = (seconds) => {
      const x = `${(100 * seconds) / length}%`;
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.setAttribute("visibility", "visible");
      clock.textContent = `${seconds.toFixed(2)} s`;
    };
    const leave = () => {
      cursor.setAttribute("visibility", "hidden");
      clock.textContent = "";
      for (const shot of shots) shot.classList.remove("near");
    };
    tracks.addEventListener("pointermove", (event) => {
      const box = tracks.querySelector(".over").getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      if (share < 0 || share > 1) return leave();
      const seconds = share * length;
      point(seconds);
      let near = null;
      for (const shot of shots) {
        shot.classList.remove("near");
        if (Number(shot.dataset.time) <= seconds + 0.01) near = shot;
      }
      if (near) near.classList.add("near");
    });
    tracks.addEventListener("pointerleave", leave);
    for (const shot of shots) {
      shot.addEventListener("pointerenter", () => point(Number(shot.dataset.time)));
      shot.addEventListener("pointerleave", leave);
    }
    const linked = all(section, "[data-code]");
    for (const one of linked) {
      const light = (on) => {
        const codes = one.dataset.code.split(" ");
        for (const other of linked) {
          const same = codes.some((code) => other.dataset.code.split(" ").includes(code));
          if (same) other.classList.toggle("linked", on);
        }
      };
      one.addEventListener("pointerenter", () => light(true));
      one.addEventListener("pointerleave", () => light(false));
    }
  }
})();
