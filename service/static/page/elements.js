// Elements of HTML and of SVG, made without markup.

const SVG = "http://www.w3.org/2000/svg";

export const by = (id) => document.getElementById(id);

// An HTML element; attributes that are null are left out, children may be text.
export function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

// An SVG element, likewise.
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value != null) element.setAttribute(name, value);
  element.append(...children.flat(Infinity).filter((one) => one != null));
  return element;
}

// A table in a box that scrolls by itself; the first cell of each row heads it.
export function table(caption, head, rows) {
  const body = rows.map(([first, ...rest]) =>
    html("tr", {}, html("th", { scope: "row" }, first), rest.map((one) => html("td", {}, one))));
  return html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    html("table", {}, html("caption", { class: "unseen" }, caption),
      html("thead", {}, html("tr", {}, head.map((one) => html("th", { scope: "col" }, one)))), html("tbody", {}, body)));
}

// Draw into a container now and whenever its width changes; returns what draws again with other data.
export function drawn(container, draw) {
  let data = null, width = 0;
  const redraw = () => { if (data !== null && width > 0) container.replaceChildren(draw(width, data)); };
  new ResizeObserver(([entry]) => {
    const found = Math.floor(entry.contentRect.width);
    if (found !== width) { width = found; redraw(); }
  }).observe(container);
  return (fresh) => { data = fresh; redraw(); };
}

// Tell whoever listens which version of the model has answered: a service may go on to another.
export const answeredBy = (version) => document.dispatchEvent(new CustomEvent("answered", { detail: version }));

// Tell a screen reader, once the text has been the same for a while.
export function speaker(element, quietMilliseconds = 1200) {
  let timer = 0;
  return (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (element.textContent !== text) element.textContent = text; }, quietMilliseconds);
  };
}
