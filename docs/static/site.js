/* The theme's search button is called "Search", but shows its keys, too: its name is what it shows. */
for (const button of document.querySelectorAll(".search-button-field")) button.removeAttribute("aria-label");
