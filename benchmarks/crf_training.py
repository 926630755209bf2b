"""Compare training through CRFs with the peers'.

    python benchmarks/crf_training.py --images DIR --convcrf CHECKOUT --crfasrnn CHECKOUT [--rounds 3]

DIR as for mean_field.py; the checkouts are the ConvCRF authors' repository and crfasrnn_pytorch, built as it asks.
A call is forward and backward through five iterations at 500 × 375 px and 21 classes, to the unary and to all that is
learnt. Every measurement is a process of its own. Figures go to benchmarks/results/crf_training.json.
"""

import argparse
from pathlib import Path

import record
from mean_field import UNTOUCHED, Entry, timed

SIZE = {"500x375x21": (375, 500, 21)}


def main():
    """Measure in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--images", "--convcrf", "--crfasrnn"):
        parser.add_argument(option, type=lambda text: Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    record.keep("crf_training", record.header() | {"times": timed(entries(args), SIZE, args)})


def entries(args):
    """Return every contestant, ours before the peer of each."""
    eleven = {"filter_size": 11, "blur": 4}
    peer = {"checkout": str(args.convcrf), "train": True} | eleven
    compatible = {"compatibility": "asymmetric"}
    rnn = {"checkout": str(args.crfasrnn)}
    return [
        Entry("convcrf", "convcrf_training", eleven),
        Entry("convcrf, reference", "reference", peer, (1, 2), UNTOUCHED),
        Entry("convcrf +C", "convcrf_training", eleven | compatible),
        Entry("convcrf +C, reference", "reference", peer | {"compatibility": True}, (1, 2), UNTOUCHED),
        Entry("crfrnn, matrices", "crfrnn_training", {}),
        Entry("crfrnn, weights by class", "crfrnn_training", {"kernel_weights": "diag"}),
        Entry("crfrnn, crfasrnn_pytorch", "crfasrnn_training", rnn, (1, 2), UNTOUCHED),
    ]


if __name__ == "__main__":
    main()
