"""The comparison behind ``pycnn bench --peers``: pycnn beside every engine that is installed, cell by cell.

cells.py        what is compared: a cell is one pass of one layer, or what a network does, at one batch size
assignments.py  what everybody is given in a cell, and the right answer
field.py        the contestants in their processes, and what one cell of them gives: checked first, then raced
results.py      who is ahead by how much; the file that keeps the cells
page.py         the same as HTML and as a picture
"""
