"""The files between the stages: how each is written, read and checked. Only formats and datasets open data files."""
