"""Mixtures of published datasets: their declaration, their lock and the law of their draws."""
