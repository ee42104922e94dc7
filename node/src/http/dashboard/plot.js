// Small plots in SVG: a box of 1000 × 100 that is stretched to its place, with the numbers beside it as text.

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

/** A plot in the page: named paths, made once, in the order of drawing. */
export class Plot {
	constructor(id, names) {
		this.svg = document.getElementById(`plot-${id}`);
		const attributes = { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": id };
		for (const [name, value] of Object.entries(attributes)) this.svg.setAttribute(name, value);
		this.paths = {};
		for (const name of names) {
			this.paths[name] = document.createElementNS(NS, "path");
			this.paths[name].setAttribute("class", name);
			this.svg.append(this.paths[name]);
		}
	}

	draw(all) {
		for (const [name, d] of Object.entries(all)) {
			const path = this.paths[name];
			if (path.drawn !== d) path.setAttribute("d", d);
			path.drawn = d;
		}
	}

	/** What the plot says, for those who do not see it. */
	say(text) {
		if (this.said !== text) this.svg.setAttribute("aria-label", text);
		this.said = text;
	}

	/** Marks a place in 0..1, or none. */
	cursor(x) {
		this.draw({ cursor: x === undefined ? "" : `M${round(x * W)} 0V${H}` });
	}

	/** Lets the pointer and arrow keys choose one of `length()` items, the last of `slots` columns. */
	onChoice(length, chosen, slots = (n) => n) {
		let at;
		const tell = (index) => {
			const n = length();
			const next = index === undefined || n === 0 ? undefined : Math.max(0, Math.min(n - 1, index));
			if (next !== at) chosen((at = next));
		};
		const on = (event, act) => this.svg.addEventListener(event, act);
		on("pointermove", (event) => {
			const box = this.svg.getBoundingClientRect();
			const all = slots(length());
			tell(Math.floor(((event.clientX - box.left) / box.width) * all) - (all - length()));
		});
		on("pointerleave", () => tell());
		on("blur", () => tell());
		on("keydown", (event) => {
			const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
			if (step === undefined) return;
			event.preventDefault();
			tell((at ?? length()) + step);
		});
	}
}
