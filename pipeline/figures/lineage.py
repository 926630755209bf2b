"""The trainings that a network went through as one line, as in Figure 3 of Colovic et al. (CVWW 2017)."""

CAPTION = "Training in stages: mean IoU on the held-out images; a dashed line begins the training of {nets}."
COLOURS = {"classes": 1, "categories": 2}  # places in `palette.SERIES`
_KEYS = {"classes": "heldout_miou", "categories": "heldout_category_miou"}


def joined(trainings):
    """Put trainings behind one another.

    Parameters
    ----------
    trainings : list of (str, list of dict)
        Network and epochs, the first training first.

    Returns
    -------
    (dict of str to (list of int, list of float), dict of str to int) or None
        Steps of all trainings so far and percents, by what was averaged; the step that each network begins at. None
        if fewer than two trainings looked at the held-out images.
    """
    series, starts, done, looked = {}, {}, 0, 0
    for net, epochs in trainings:
        starts[net] = done
        for label, key in _KEYS.items():
            for epoch in epochs:
                if epoch.get(key) is not None:
                    steps, values = series.setdefault(label, ([], []))
                    steps.append(done + epoch["steps"])
                    values.append(epoch[key])
        looked += any(epoch.get("heldout_miou") is not None for epoch in epochs)
        done += epochs[-1]["steps"]
    return (series, starts) if looked > 1 else None
