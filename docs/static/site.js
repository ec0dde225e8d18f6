/* The theme's search button is called "Search", but shows its keys, too, which a Mac has others of,
   and shows no text on a phone: its name is all of its text. */
addEventListener("load", () => {
  for (const button of document.querySelectorAll(".search-button-field"))
    button.ariaLabel = button.textContent.replace(/\s+/g, " ").trim();
});
