"""Partition functions, likelihoods, accuracies and figures of trained models."""
