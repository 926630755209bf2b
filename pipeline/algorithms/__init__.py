"""Inference and training, arrays in, arrays out: no files, no printing, no global state but torch's own."""
