"""How each peer runs a case of the race "cells", one module a peer as in the folder above.

The operands are those of operands.draw_form.
"""
