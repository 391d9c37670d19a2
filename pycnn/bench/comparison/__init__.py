"""The comparison behind ``pycnn bench --peers``: pycnn beside every engine that is installed, cell by cell.

cells.py     what is compared: a cell is one pass of one layer at one batch size
field.py     the contestants in their processes, and what one cell of them gives: checked first, then raced
results.py   who is ahead by how much; the file that keeps the cells
page.py      the same as HTML and as a picture
"""
