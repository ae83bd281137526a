"""Properties of models, predicted from features of their weights."""
