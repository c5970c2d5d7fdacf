element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-ruling]'), row = event.target.closest('[data-tag]');
  if (!button) return;
  const choice = row.querySelector('select');
  trigger('rule', { tag: row.dataset.tag, attribute: (choice && choice.value) || row.dataset.attribute, ruling: button.dataset.ruling });
});
