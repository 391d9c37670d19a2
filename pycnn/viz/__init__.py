"""Pictures of training: each function draws one PNG file.  Matplotlib (``pycnn[viz]``) is imported when first drawn."""

from pycnn.viz.activations import activation_maps as activation_maps
from pycnn.viz.confusion import confusion_matrix as confusion_matrix
from pycnn.viz.curves import curves as curves
from pycnn.viz.filters import filters as filters
from pycnn.viz.samples import misclassified as misclassified
from pycnn.viz.samples import sample_grid as sample_grid
