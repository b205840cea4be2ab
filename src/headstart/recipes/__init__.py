"""Named experiments: settings, data, and what to expect of them."""

from headstart.recipes.pretrain_mini import PRETRAIN_MINI
from headstart.recipes.spec import RECIPES, RecipeSpec

__all__ = ["PRETRAIN_MINI", "RECIPES", "RecipeSpec"]
