"""Settings of the tiny run that the tests of the stages share."""

SCALING = {"channels": "rgb", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CACHE = {"splits": ["heldout", "val"], "dtype": "float32"}
LOOP = {
    "split": "train",
    "loss": "cross_entropy",
    "epochs": 2,
    "batch": 4,
    "crop": [32, 32],
    "optimiser": {"name": "adam"},
    "learning_rate": 2e-3,
    "classifier_rate": 1,
    "bias_rate": 1,
    "schedule": {"name": "squared_poly", "power": 0.9},
    "weight_decay": 5e-4,
    "learns": ["backbone", "classifier"],
    "precision": "float32",
    "normalisation": "trained",
    "heldout_every": 0,
    "augmentation": {
        "flip": True,
        "rotation": 10,
        "resize": [0.8, 1.25],
        "jitter": {"brightness": 0.1, "contrast": 0.2, "saturation": 0.2, "hue": 0.02},
    },
}
NETWORK = {
    "architecture": "resnet_fcn",
    "depth": 18,
    "width": 0.125,
    "output_stride": 16,
    "stride_in_1x1": False,
    "dropout": 0.1,
}
TRAINED = {
    "source": "train",
    "network": NETWORK,
    "weights": "none",
    "scaling": SCALING,
    "loss_at": "pixels",
    "train": LOOP | {"heldout_every": 2},
    "cache": CACHE,
}
TUNED = {
    "source": "finetune",
    "net": "tiny",
    "system": "convcrf",
    "system_learning_rate": 5e-3,
    "recompute": [],
    "watched_images": 2,
    "finetune": LOOP | {"epochs": 1, "learning_rate": 1e-4, "normalisation": "frozen"},
    "cache": CACHE,
}
NOISY = {
    "source": "noisy_truth",
    "kind": "probability",
    "cell": 8,
    "keep_probability": 0.8,
    "stride": 1,
    "cache": CACHE,
}
EMBEDDED = {
    "reader": "embedded",
    "trimap": "void",
    "train": 2,
    "heldout": 1,
    "val": 1,
    "longest_side": 40,
    "shortest_side": 32,
    "void_band": 1,
}
DEEPLAB = {
    "system": "deeplab",
    "preset": "default",
    "filter": "lattice",
    "filter_size": 3,
    "smoothness": "lattice",
    "iterations": 2,
    "tolerance": 0,
    "normalisation": "after",
    "exclude_self": False,
    "appearance_position": True,
    "appearance_weight": 5.0,
    "smoothness_weight": 1.0,
    "theta_alpha": 10.0,
    "theta_beta": 20.0,
    "theta_gamma": 3.0,
    "temperature": 1.0,
    "clip": 0,
    "search": {
        "images": "heldout",
        "appearance_weight": {"first": 2, "last": 6, "step": 4},
        "theta_alpha": {"first": 5, "last": 5, "step": 1},
        "theta_beta": {"first": 10, "last": 40, "step": 30},
        "halvings": 1,
        "rounds": 9,
        "judging": {"name": "all"},
    },
}
