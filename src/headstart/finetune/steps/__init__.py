"""The training itself: phases, their steps, optimizers and averages."""
