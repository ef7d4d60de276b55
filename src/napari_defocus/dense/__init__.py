"""The dense network: its weights, inference, features and training."""
