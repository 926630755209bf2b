"""Make one page of all results: table, words, plots, pictures, and what they came from.

reads   a run table, the table of results, the packs, labels, scores, fitted systems and training histories
writes  a folder: index.html, which holds everything, and figures/, the same plots as single files
"""

import sys
from pathlib import Path

import numpy as np

from pipeline.core import files, layout, stage, stamp
from pipeline.core.errors import DataError
from pipeline.figures import gallery, page, plots, sections
from pipeline.formats import confusions, fitted, tables
from pipeline.formats.labels import Labels
from pipeline.formats.packs import Pack
from pipeline.metrics import overlap


def add_arguments(parser):
    parser.add_argument("--runs", required=True, metavar="TABLE", help="the run table")
    parser.add_argument("--table", required=True, metavar="TABLE", help="the table of results")
    parser.add_argument("--results", required=True, metavar="FOLDER", help="where the runs' files lie")
    parser.add_argument(
        "--images", required=True, type=stage.positive, metavar="N", help="pictures shown of each network"
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="of the page")


def run(args):
    runs = layout.read_runs(args.runs)
    rows, made = _rows(runs, args.table)
    systems = ["unary", *(row["system"] for row in rows)]
    colours = {system: place for place, system in enumerate(dict.fromkeys(systems))}
    figures, stamps, body = {}, [made], []
    groups = _groups(runs)
    for pack_name, nets in groups.items():
        pack = Pack(nets[0][0].pack_file(args.results))
        stamps.append(pack.stamp)
        of_pack = [rows[run] for members in nets for run in members]
        prefix = f"{pack_name}: " if len(groups) > 1 else ""
        body.append(sections.data(pack_name, pack, of_pack))
        body.append(sections.results(pack_name, of_pack, _memory(nets, args.results), colours, figures))
        for members in nets:
            body.append(_details(members, pack, rows, colours, figures, args))
    ...
