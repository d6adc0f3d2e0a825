"""Loose files, a folder or a file for each episode: tables, arrays of NumPy, images, videos and texts."""
