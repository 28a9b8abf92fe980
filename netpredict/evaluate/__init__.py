"""Predictors and hooks measured beside each other, on traces and on cases whose truth is known."""
