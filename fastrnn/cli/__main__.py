"""python -m fastrnn.cli is the command fastrnn."""

from fastrnn.cli import main

main()
