"""The page: predict with a model, look at runs and at their data, in a browser on this computer."""
