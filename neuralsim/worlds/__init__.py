"""The bundled worlds: one folder each, with weights, real starts, card and the recipe that made it."""
