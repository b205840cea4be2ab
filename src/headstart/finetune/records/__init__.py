"""What a training leaves behind: checkpoints, history, clocks, figures."""
