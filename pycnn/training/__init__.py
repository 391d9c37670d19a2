"""Training a classifier: recipes, the loop with its checkpoints, and the measuring of what came out."""

from pycnn.training.evaluate import Evaluation as Evaluation
from pycnn.training.evaluate import evaluate as evaluate
from pycnn.training.recipe import Recipe as Recipe
from pycnn.training.recipe import pipelines as pipelines
from pycnn.training.recipe import recipe_for as recipe_for
from pycnn.training.trainer import BatchReport as BatchReport
from pycnn.training.trainer import Diverged as Diverged
from pycnn.training.trainer import EpochReport as EpochReport
from pycnn.training.trainer import Trainer as Trainer
