"""From labelled images to a trained model and its report: the commands that a person would type, one after another.

plan.py lists the commands, steps.py knows which are done, processes.py runs one and passes signals on.
"""
