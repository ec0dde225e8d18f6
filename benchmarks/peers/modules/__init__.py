"""How fastrnn.torch and PyTorch run a case of PyTorch's modules, as in the folder above.

The modules are those of models.py; there are no operands.
"""
