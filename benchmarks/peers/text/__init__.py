"""How each peer runs a case that starts from texts, one module a peer as in the folder above.

The operands are those of texts.draw. Not here: JAX, which compiles a function anew for each shape.
"""
