"""Showing results: plots, pictures and the page that holds them."""
