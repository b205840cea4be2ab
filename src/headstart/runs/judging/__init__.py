"""What a run says of its model: figures, confidence, rivals."""
