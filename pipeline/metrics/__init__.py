"""Counting how labels agree with the truth, and how sure a difference is: arrays in, numbers out."""
