// A text field with suggestions (the combobox pattern): the server knows the vocabulary, however large.
const input = element.querySelector('input'), list = element.querySelector('[role="listbox"]');
let offers = [], at = 0, asked = 0;

function draw() {
  list.replaceChildren(...offers.map(({ tag, attribute, known }, index) => {
    const option = document.createElement('li'), name = document.createElement('b');
    name.textContent = tag;
    const where = attribute === '?' ? 'attribute not decided' : attribute;
    option.append(name, known ? ` ${where}` : ` new tag · ${where}`);
    option.id = `offer-${index}`;
    option.setAttribute('role', 'option');
    option.setAttribute('aria-selected', index === at);
    option.addEventListener('mousedown', (event) => { event.preventDefault(); take(index); });
    return option;
  }));
  list.hidden = !offers.length;
  input.setAttribute('aria-expanded', !!offers.length);
  if (offers.length) input.setAttribute('aria-activedescendant', `offer-${at}`);
  else input.removeAttribute('aria-activedescendant');
  list.children[at]?.scrollIntoView({ block: 'nearest' });
}

async function ask() {
  const number = ++asked, typed = input.value;
  const found = typed.trim() ? await server.suggest(typed) : [];
  if (number !== asked) return;  // an answer to what was typed before
  offers = found;
  at = 0;
  draw();
}

function clear() {
  asked++;
  offers = [];
  input.value = '';
  draw();
}

async function take(index) {
  if (!offers.length) await ask();
  const offer = offers[index];
  if (!offer) return;
  window.hfTaggerAct({ do: 'add', tag: offer.tag, attribute: offer.attribute });
  clear();
  input.blur();
}

input.addEventListener('input', ask);
input.addEventListener('blur', () => { offers = []; draw(); });
input.addEventListener('keydown', (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) at = Math.min(Math.max(at + step, 0), offers.length - 1);
  else if (event.key === 'Enter') take(at);
  else if (event.key === 'Escape') { clear(); input.blur(); }
  else return;
  event.preventDefault();
  if (step) draw();
});
