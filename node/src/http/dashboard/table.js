// Writing to the page. Every text goes in as text, and a node is written only when its text has changed.

const cache = new Map();

export function byId(id) {
	let node = cache.get(id);
	if (node === undefined) cache.set(id, (node = document.getElementById(id)));
	return node;
}

export function put(node, text) {
	if (node.shown === text) return;
	node.shown = text;
	node.textContent = text;
}

export const write = (id, text) => put(byId(id), text);

export function element(tag, name, text) {
	const node = document.createElement(tag);
	if (name) node.className = name;
	if (text) put(node, text);
	return node;
}

const named = (node, name) => {
	if (node.className !== name) node.className = name;
};

/** Terms and their words, in a `dl`: `[term, text, soft text after it, class]`. */
export function terms(id, rows) {
	const list = byId(id);
	while (list.children.length > rows.length * 2) list.lastChild.remove();
	rows.forEach(([term, text, soft = "", name = ""], i) => {
		if (i * 2 === list.children.length) {
			const words = element("dd");
			words.append(element("span"), element("span"));
			list.append(element("dt"), words);
		}
		const words = list.children[i * 2 + 1];
		put(list.children[i * 2], term);
		put(words.firstChild, text);
		named(words.firstChild, name);
		put(words.lastChild, soft && ` ${soft}`);
		named(words.lastChild, "soft");
	});
}

/**
 * A table. A column: `head`, `text(item)`, perhaps `sub(item)` for a second line, `mark(item)` for a class, `bar(item)` for a share of one, `n` for
 * figures, `mono` for hashes; the first heads its row. `empty` is said when there is nothing. Rows stay with their `key`, so that a new one can be
 * seen to arrive.
 */
export class Table {
	constructor(id, columns, empty = "", key = (_, i) => i) {
		Object.assign(this, { columns, key, rows: new Map(), none: element("tr", "none") });
		const table = byId(id);
		const top = element("tr");
		for (const column of columns) {
			const head = element("th", column.n ? "n" : "", column.head);
			head.scope = "col";
			top.append(head);
		}
		const head = element("thead");
		head.append(top);
		this.body = element("tbody");
		const nothing = element("td", "soft", empty);
		nothing.colSpan = columns.length;
		this.none.append(nothing);
		this.body.append(this.none);
		table.append(head, this.body);
		// A table that is laid out as a grid on a phone stays a table for those who hear it.
		this.stack = table.className === "stack";
		if (!this.stack) return;
		const roles = { table: [table], rowgroup: [head, this.body], row: [top], columnheader: top.children };
		for (const [role, nodes] of Object.entries(roles)) for (const node of nodes) node.setAttribute("role", role);
	}

	row() {
		const row = element("tr");
		row.parts = this.columns.map((column, i) => {
			const name = column.n ? "n" : "";
			const cell = element(i === 0 ? "th" : "td", name);
			if (i === 0) cell.scope = "row";
			if (this.stack) {
				row.setAttribute("role", "row");
				cell.setAttribute("role", i === 0 ? "rowheader" : "cell");
				cell.dataset.head = column.head;
			}
			const main = element("span", column.mono ? "mono" : "");
			const sub = column.sub && element("small");
			const bar = column.bar && element("i", "bar");
			cell.append(main, " ", ...[sub, bar].filter(Boolean));
			row.append(cell);
			return { cell, main, sub, bar, name };
		});
		return row;
	}

	fill(row, item) {
		row.parts.forEach(({ cell, main, sub, bar, name }, i) => {
			const column = this.columns[i];
			put(main, column.text(item));
			if (sub) put(sub, column.sub(item));
			if (bar) {
				const width = `${(column.bar(item) * 100).toFixed(1)}%`;
				if (bar.wide !== width) bar.style.width = bar.wide = width;
			}
			if (column.mark) named(cell, `${name} ${column.mark(item)}`.trim());
		});
	}

	show(items) {
		const rows = new Map(items.map((item, i) => [this.key(item, i), item]));
		const spare = [];
		for (const [key, row] of this.rows) {
			if (rows.has(key)) continue;
			row.remove();
			spare.push(row);
			this.rows.delete(key);
		}
		let next = this.none.nextSibling;
		for (const [key, item] of rows) {
			let row = this.rows.get(key);
			if (row === undefined) {
				row = spare.pop() ?? this.row();
				named(row, item.fresh ? "fresh" : "");
				this.rows.set(key, row);
			}
			this.fill(row, item);
			if (row === next) next = next.nextSibling;
			else this.body.insertBefore(row, next);
		}
		this.none.hidden = items.length > 0;
	}
}
