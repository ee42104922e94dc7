// Small plots in SVG. Each is a box of 1000 × 100 that is stretched to its place; lines keep their width, and numbers stand beside it as text.

const NS = "http://www.w3.org/2000/svg";
const W = 1000;
const H = 100;
/** Room above and below, so that a line at the edge is seen whole. */
const PAD = 3;

const round = (x) => Math.round(x * 10) / 10;

/** A scale from a range of values to the height of the box. */
export function scale(min, max) {
  const span = max - min || 1;
  return (value) => round(H - PAD - ((value - min) / span) * (H - 2 * PAD));
}

/** A path through points `[x in 0..1, y in the box]`; `null` breaks it. */
export function line(points) {
  let path = "";
  let pen = "M";
  for (const point of points) {
    if (point === null) {
      pen = "M";
      continue;
    }
    path += `${pen}${round(point[0] * W)} ${point[1]}`;
    pen = "L";
  }
  return path;
}

/** The same with the area below it closed, one area for each unbroken run. */
export function area(points) {
  let path = "";
  let run = [];
  const close = () => {
    if (run.length > 1) path += `${line(run)}L${round(run.at(-1)[0] * W)} ${H}L${round(run[0][0] * W)} ${H}Z`;
    run = [];
  };
  for (const point of points) {
    if (point === null) close();
    else run.push(point);
  }
  close();
  return path;
}

/** Steps: each value holds until the next. */
export function steps(ys) {
  const each = W / Math.max(1, ys.length);
  return ys.map((y, i) => `${i === 0 ? "M" : "L"}${round(i * each)} ${y}H${round((i + 1) * each)}`).join("");
}

/** Bars from the floor, or from `floor(i)`; `slots` keeps their width when there are few. */
export function bars(ys, slots = ys.length, floor = () => H) {
  const each = W / Math.max(1, slots);
  const wide = each * 0.72;
  const first = slots - ys.length;
  let path = "";
  ys.forEach((y, i) => {
    if (y === null) return;
    const x = round((first + i) * each + (each - wide) / 2);
    path += `M${x} ${round(floor(i))}V${y}h${round(wide)}V${round(floor(i))}Z`;
  });
  return path;
}

/** A plot in `svg`: named paths, made once, in the order of drawing. */
export class Plot {
  constructor(svg, names) {
    this.svg = svg;
    svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
    svg.setAttribute("preserveAspectRatio", "none");
    this.paths = new Map(
      names.map((name) => {
        const path = document.createElementNS(NS, "path");
        path.setAttribute("class", name);
        svg.append(path);
        return [name, path];
      }),
    );
  }

  draw(name, d) {
    const path = this.paths.get(name);
    if (path.drawn !== d) path.setAttribute("d", d);
    path.drawn = d;
  }

  /** What the plot says, for those who do not see it. */
  say(text) {
    if (this.said !== text) this.svg.setAttribute("aria-label", text);
    this.said = text;
  }

  /** Lets pointer and arrow keys choose one of `slots()` columns; `chosen(index or null)` is told, once a frame at most. */
  onChoice(slots, chosen) {
    let at = null;
    const tell = (index) => {
      if (index === at) return;
      at = index;
      chosen(at);
    };
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      const n = slots();
      if (n > 0) tell(Math.max(0, Math.min(n - 1, Math.floor(((event.clientX - box.left) / box.width) * n))));
    });
    this.svg.addEventListener("pointerleave", () => tell(null));
    this.svg.addEventListener("blur", () => tell(null));
    this.svg.addEventListener("keydown", (event) => {
      const n = slots();
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -n, End: n }[event.key];
      if (step === undefined || n === 0) return;
      event.preventDefault();
      tell(Math.max(0, Math.min(n - 1, (at ?? n) + step)));
    });
  }

  /** Marks a column. */
  cursor(index, n) {
    this.draw("cursor", index === null || n === 0 ? "" : `M${round(((index + 0.5) / n) * W)} 0V${H}`);
  }
}
