"""How often verdicts are wrong on labelled media, as a page of the documentation."""
