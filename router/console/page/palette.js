// Colours of nodes: eight hues that also differ in lightness, then the same
// darker and lighter. A node keeps its colour while the list of nodes is the
// same.
const HUES = 8;
const BANDS = ['', ' 68%, black', ' 62%, white'];
let places = new Map();

export function learn(nodes) {
  places = new Map(nodes.map((n, i) => [n.id, i]));
}

export function colourOf(id) {
  const place = places.get(id);
  if (place === undefined) return 'var(--nobody)';
  const hue = `var(--node-${place % HUES})`;
  const band = BANDS[Math.floor(place / HUES) % BANDS.length];
  return band ? `color-mix(in oklab, ${hue}${band})` : hue;
}

/** A small square in the colour of a node. */
export function swatch(id) {
  const square = document.createElement('span');
  square.className = 'swatch';
  square.ariaHidden = 'true';
  square.style.setProperty('--c', colourOf(id));
  return square;
}
