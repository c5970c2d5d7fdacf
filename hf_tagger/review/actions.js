// The buttons below the card do what the keys do.
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (button) window.hfTaggerAct({ do: button.dataset.do });
});
