"""Models of sound, sample by sample: SaShiMi beside an isotropic S4D of its size, trained in PyTorch, heard from NumPy.

    python docs/examples/audio.py
    python docs/examples/audio.py --data digits.npz
    python docs/examples/audio.py --data folder_of_wav_files --rate 16000

Without data a program plucks a string. Clips become 8-bit mu-law samples, and bits a sample of clips that were not
learned from are compared with those of counts behind 0, 1, 2 and 3 samples. Every model then makes sound step by step
in NumPy, into WAV files, and a picture shows the spectrograms of real and made sound. A training that was stopped goes
on from its last checkpoint when it is started again, to the same numbers.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ssm_core
from audio_training import Recipe, bits_a_sample, train
from sound import Clips, clips_of, order_bits, spectrogram, write_wav
from ssm_core import adapters, models

FOLDER = Path(__file__).parents[1] / "_build" / "audio"
S4D: dict[str, Any] = {"layer": "S4D", "layer_options": {"d_state": 32}}
RECIPES = {
    "sashimi": Recipe(models.SaShiMi(256, 32, 1, **S4D, pool=(4, 4)), updates=2400),
    "isotropic": Recipe(models.SaShiMi(256, 72, 5, **S4D, pool=()), updates=500),
}
TESTED = 40  # clips


def quantized(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Every clip stretched to [-1, 1] and mu-law quantized."""
    return [ssm_core.quantize(clip, minmax=True) for clip in clips]


def heard(weights: Path, seconds: float, rate: int, batch: int = 3, temperature: float = 1.0) -> np.ndarray:
    """Clips (batch, samples) that a model makes in NumPy, one sample after another from silence on."""
    model, params = ssm_core.load(weights)
    silence = np.full((batch, 1), model.vocab_size // 2)
    tokens = model.generate(params, silence, round(seconds * rate), temperature=temperature, seed=0)
    return np.asarray(ssm_core.dequantize(tokens))


def draw(path: Path, sounds: dict[str, np.ndarray], rate: int) -> None:
    """Spectrograms side by side."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(sounds), figsize=(4 * len(sounds), 3.2), sharey=True, squeeze=False)
    for axis, (name, x) in zip(axes[0], sounds.items(), strict=True):
        extent = (0, len(x) / rate, 0, rate / 2000)
        axis.imshow(spectrogram(x), origin="lower", aspect="auto", extent=extent, cmap="BuPu", vmin=-40, vmax=30)
        axis.set(title=name, xlabel="seconds")
    axes[0, 0].set_ylabel("kHz")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def run(clips: Clips, folder: Path, recipes: dict[str, Recipe], seconds: float = 1.0) -> dict[str, float]:
    """Bits a sample by the name of what foretells them."""
    learned, tested = quantized(clips.train), quantized(clips.test[:: max(len(clips.test) // TESTED, 1)])
    print(f"{clips.name}: {sum(map(len, learned)):,} samples to learn from, {sum(map(len, tested)):,} tested on")
    bits = {f"counts, order {k}": order_bits(learned, tested, k) for k in range(4)}
    for name, found in bits.items():
        print(f"{name}: {found:.3f} bits a sample")
    real = max(clips.test, key=len)[: round(seconds * clips.rate)]
    sounds = {"real": real / np.abs(real).max()}
    write_wav(folder / "real.wav", sounds["real"], clips.rate)
    for name, recipe in recipes.items():
        begun = time.perf_counter()
        module = train(name, recipe, learned, folder / f"{name}.checkpoint")
        took, bits[name] = time.perf_counter() - begun, bits_a_sample(module, tested)
        size = sum(p.numel() for p in module.parameters())
        print(f"{name}: {bits[name]:.3f} bits a sample, {size:,} parameters, {recipe.updates} updates, {took:.0f} s")
        weights, begun = folder / f"{name}.safetensors", time.perf_counter()
        adapters.torch.save(module, weights)
        made = heard(weights, seconds, clips.rate)
        print(f"{name}: {made.size:,} samples by steps in NumPy in {time.perf_counter() - begun:.0f} s")
        for i, x in enumerate(made):
            write_wav(folder / f"{name}_{i}.wav", x, clips.rate)
        sounds[name] = made[0]
    draw(folder / "spectrograms.png", sounds, clips.rate)
    print(f"sound in {folder}/*.wav, spectrograms in {folder / 'spectrograms.png'}")
    return bits


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="audio", description=__doc__.partition("\n")[0])
    given = os.environ.get("SSM_CORE_SOUND")
    parser.add_argument(
        "--data", type=Path, default=given and Path(given), help="a WAV file, a folder of them, or .npz"
    )
    parser.add_argument("--rate", type=int, default=8000, help="samples a second (default: 8000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of the sound that is made (default: 1)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for what is written (default: docs/_build/audio)")
    options = parser.parse_args(arguments)
    if options.rate < 1 or not options.seconds > 0:
        parser.error("--rate and --seconds must be positive.")
    pools = max(int(np.prod(recipe.model.pool, dtype=int)) for recipe in RECIPES.values())
    clips = clips_of(options.data, options.rate, pools)
    options.folder.mkdir(parents=True, exist_ok=True)
    run(clips, options.folder, RECIPES, options.seconds)


if __name__ == "__main__":
    main()
