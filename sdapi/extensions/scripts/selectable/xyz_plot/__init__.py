"""X/Y/Z plot: a grid over up to three settings (contract: webui-scripts 8).

axes.py     what an axis can vary, in the webui's order
values.py   the text or list of an axis -> its values
plan.py     the axes of a request, and its cells in the order they are drawn
cells.py    the pictures of the cells
script.py   the script: grids and answer
"""

from sdapi.extensions.scripts.selectable.xyz_plot.script import XYZPlot

__all__ = ["XYZPlot"]
