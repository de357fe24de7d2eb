"""The demo model ``shapes``: its captions, its pictures, its training and its accuracy.

Only developers run this package; studioq ships what it made. Each program is a module:
``python -m workers.shapes.train`` trains, ``python -m workers.shapes.evaluate`` measures.
"""
