"""What a training step is given: pictures, their augmentation, targets."""
