"""Choosing a recipe from the data, the machine and the time: what `solo-dist suggest` does.

facts.py reads the data, cells.py and canvas.py count what a canvas and grids do to it, machine.py measures the device,
choices.py decides, recipe_file.py writes the file.
"""
