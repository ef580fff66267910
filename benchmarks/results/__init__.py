"""Published comparisons, trained anew with one loop: see `python -m benchmarks.results`."""

NAMES = {
    "state-tracking": "permutations of three things composed: DeltaProduct, and diagonal layers, which fail",
    "parity": "ones counted modulo 2, on sequences longer than those of the training",
    "recall": "multi-query associative recall over the pairs or the width, for ten layers",
    "selective-copying": "tokens remembered among others, by layers whose gates see the input and by those that do not",
    "induction-heads": "what followed a mark when it was last seen, on sequences longer than those of the training",
    "mnist": "handwritten digits, pixel by pixel",
    "permuted-mnist": "the same in a random order of pixels",
    "cifar": "gray images, pixel by pixel, with the minimal S4D",
    "spoken-digits": "sound, sample by sample",
    "forecasting": "30 days of the hourly oil temperature of ETTh1",
    "ecg": "an electrocardiogram as HiPPO's measures remember it, over N",
    "rates": "trained at one sampling rate and tested at half of it, for every time-invariant layer",
}
DATA = ("mnist", "permuted-mnist", "cifar", "spoken-digits", "forecasting", "ecg")  # those that read `--data FOLDER`
