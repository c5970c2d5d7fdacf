// The card's buttons, and the keyboard. The chosen tag is known by its names: the card is drawn anew after every verdict.
let chosen = null, product = null, step = null;

const chips = () => [...element.querySelectorAll('.chip[data-tag]')];
const key = (chip) => JSON.stringify([chip.dataset.attribute, chip.dataset.tag]);
const current = () => chips().find((chip) => key(chip) === chosen);
const judged = (chip) => !!chip.querySelector('[aria-pressed="true"]') || chip.classList.contains('saving');

function choose(chip) {
  if (!chip) return;
  chosen = key(chip);
  for (const one of chips()) one.classList.toggle('chosen', one === chip);
  chip.scrollIntoView({ block: 'nearest' });
}

function move(step) {
  const all = chips(), at = all.indexOf(current());
  choose(all[Math.min(Math.max(at + step, 0), all.length - 1)]);
}

// One after the other, for requests that run side by side may overtake each other. The product that the reviewer sees
// goes along: keys that come too late must not judge another one.
const waiting = [];
let patience = null;

function act(data) {
  waiting.push({ product, ...data });
  if (waiting.length === 1) send();
}

function send() {
  trigger('act', waiting[0]);
  patience = setTimeout(answered, 15000);  // no answer at all: Gradio has told the reviewer by then
}

function answered() {
  clearTimeout(patience);
  waiting.shift();
  if (waiting.length) send();
}
window.hfTaggerAct = act;  // for the buttons and the field below

function judge(chip, decision) {
  if (!chip) return;
  chip.classList.add('saving');
  act({ do: 'judge', attribute: chip.dataset.attribute, tag: chip.dataset.tag, decision });
  const all = chips(), at = all.indexOf(chip);
  choose(all.slice(at + 1).find((one) => one.classList.contains('predicted') && !judged(one)) || chip);
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('button'), chip = event.target.closest('.chip');
  if (chip) choose(chip);
  if (button && button.dataset.act) judge(chip, button.dataset.act);
});

const KEYS = {
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  a: () => judge(current(), 'accept'), r: () => judge(current(), 'reject'), u: () => judge(current(), 'unsure'),
  Enter: () => act({ do: 'accept_rest' }), n: () => act({ do: 'next' }), ArrowRight: () => act({ do: 'next' }),
  b: () => act({ do: 'back' }), ArrowLeft: () => act({ do: 'back' }), z: () => act({ do: 'undo' }),
  '/': () => document.querySelector('#add input')?.focus(),
};

function onKey(event) {
  if (!element.isConnected) return document.removeEventListener('keydown', onKey);
  if (event.key === 'Enter' && event.target.closest?.('#reviewer')) event.target.blur();  // to the keys of the card
  const elsewhere = event.target.closest?.('input, textarea, select, [role="listbox"], [role="tab"], dialog');
  if (elsewhere || event.ctrlKey || event.metaKey || event.altKey || !element.offsetParent) return;
  if (event.key === 'Enter' && event.target.closest?.('button, a, summary')) return;
  if (/^[1-9]$/.test(event.key)) choose(chips()[event.key - 1]);
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
}
document.addEventListener('keydown', onKey);

function redrawn() {
  const card = element.querySelector('.card'), all = chips();
  const same = card && card.dataset.product === product && current();
  product = card ? card.dataset.product : null;
  choose(same || all.find((chip) => chip.classList.contains('predicted') && !judged(chip)) || all[0]);
}
watch('value', () => {
  redrawn();
  const card = element.querySelector('.card');
  if (waiting.length && card && card.dataset.step !== step) answered();
  step = card && card.dataset.step;
});
redrawn();
