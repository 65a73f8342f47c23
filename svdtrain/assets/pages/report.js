"use strict";
// Videos of a row play as one: the first leads, the others are brought back to its time.
const APART = 0.06;
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

function local(film) {
  const bytes = Uint8Array.from(atob(film.src.split(",")[1]), (letter) => letter.charCodeAt(0));
  film.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));  // some browsers play no data: URIs
}

function inStep(row) {
  const films = [...row.querySelectorAll("video")];
  if (!films.length) return;
  const lead = films[0];
  const controls = row.querySelector(".controls");
  const [button, place] = [controls.querySelector("button"), controls.querySelector("input")];
  let plays = false, chosen = false;
  films.forEach(local);
  controls.hidden = false;

  const seek = (time) => films.forEach((film) => { film.currentTime = time; });
  const pause = () => {
    plays = false;
    button.textContent = "Play";
    films.forEach((film) => film.pause());
  };
  const play = () => {
    plays = true;
    button.textContent = "Pause";
    films.forEach((film) => film.play().catch(() => {}));
    requestAnimationFrame(follow);
  };
  function follow() {
    if (!plays) return;
    for (const film of films.slice(1)) {
      if (Math.abs(film.currentTime - lead.currentTime) > APART) film.currentTime = lead.currentTime;
    }
    if (lead.duration) place.value = 1000 * lead.currentTime / lead.duration;
    requestAnimationFrame(follow);
  }
  lead.addEventListener("ended", () => { if (plays) { seek(0); films.forEach((film) => film.play().catch(() => {})); } });
  button.addEventListener("click", () => { chosen = true; if (plays) pause(); else play(); });
  place.addEventListener("input", () => { chosen = true; pause(); seek(place.value / 1000 * (lead.duration || 0)); });
  new IntersectionObserver(([entry]) => {
    if (entry.isIntersecting && !chosen && !still) play();
    else if (!entry.isIntersecting && plays) { pause(); chosen = false; }
  }, { threshold: 0.5 }).observe(row);
}

document.querySelectorAll(".screening").forEach(inStep);
