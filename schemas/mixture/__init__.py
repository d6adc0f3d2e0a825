"""Mixtures of published datasets: their declaration, their lock and the order of their draws."""
