"""Edgewise: sharpen a CNN's segmentation with structured inference.

Here a file is a stage and a folder is a library.
"""
