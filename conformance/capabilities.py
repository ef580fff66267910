"""The one table of what runs where. It drives the marks of the suite and the support page of the documentation.

A row names the functions of the dispatcher that it rests on: where a backend has fused one of them, its own
implementation runs, and everywhere else the generic body. Rows of layers come with their cases. Imports no framework,
so that documentation can be built without.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .cases.layers import LAYERS
from .dispatched import FFT, GATES, LONG, MIXING, MODES, SCAN

# What every backend has fused; a test holds this against `ssm_core.backends`.
TWINS: dict[str, tuple[str, ...]] = {
    "numpy": (
        "linear_scan",
        "diagonal_stepper",
        "erf",
        "exp",
        "gelu",
        "sigmoid",
        "affine",
        "glu",
        "convolve",
        "fft_pair",
        "ratio",
    ),
    "array_api_strict": (),
    "torch": (
        "attention",
        "causal_conv1d",
        "channel_decay",
        "chunks",
        "clip",
        "convolve",
        "linear_scan",
        "diagonal_stepper",
        "driven",
        "fold",
        "expm",
        "readable",
        "eigvals",
        "erf",
        "exp",
        "sigmoid",
        "silu",
        "softplus",
        "gelu",
        "affine",
        "glu",
        "parted",
        "plus_product",
        "ratio",
        "relu",
        "rms_norm",
        "fold_of_chunks",
        "gated_delta",
        "seen",
        "selective_scan",
        "ssd",
        "taken_along",
        "weighted_means",
        "written",
    ),
    "jax": (
        "affine",
        "attention",
        "causal_conv1d",
        "channel_decay",
        "linear_scan",
        "diagonal_stepper",
        "fold",
        "fold_of_chunks",
        "gated_delta",
        "either",
        "expm",
        "selective_scan",
        "ssd",
        "erf",
        "sigmoid",
        "softplus",
        "gelu",
        "fft_pair",
        "ratio",
        "repeated",
        "weighted_means",
    ),
    "cupy": ("linear_scan", "selective_scan", "erf"),
}
FAMILIES = (*TWINS, "other")  # "other": any library that follows the array API standard

HALF_PRECISION = {
    "numpy": "float16",
    "array_api_strict": "no: the standard has no half types",
    "torch": "float16, bfloat16",
    "jax": "float16, bfloat16",
    "cupy": "float16",
    "other": "no: the standard has no half types",
}


@dataclass(frozen=True)
class Row:
    """A public function or layer: the dispatched functions and extensions that it uses, and where it cannot run."""

    function: str
    rests_on: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)

    def support(self, family: str) -> str:
        """ "fused", "generic", or "no: " and the reason."""
        if family in self.refused:
            return f"no: {self.refused[family]}"
        return "fused" if set(self.rests_on) & set(TWINS.get(family, ())) else "generic"

    def missing(self, xp: object) -> str | None:
        """The reason why a namespace cannot run it, if there is one."""
        absent = [name for name in self.extensions if not hasattr(xp, name)]
        return f"the library has no extension {' and '.join(absent)}" if absent else None


ROWS: tuple[Row, ...] = (
    Row("hippo"),
    Row("hippo_project", MODES, ("fft", "linalg")),
    Row("hippo_reconstruct", ("fold",)),
    Row("diagonal_init"),
    Row("nplr"),
    Row("discretize", ("exp", "expm"), ("linalg",)),
    Row("expm", ("expm",), ("linalg",)),
    Row("kernel", ("exp", "expm"), ("linalg",)),
    Row("convolve", FFT, ("fft",)),
    Row("linear_scan", ("linear_scan",)),
    Row("chunk_summary", ("linear_scan",)),
    Row("diagonal_scan", SCAN),
    Row("diagonal_summary", SCAN),
    Row("selective_scan", ("selective_scan", "exp", *SCAN)),
    Row("selective_summary", ("selective_scan", "exp", *SCAN)),
    Row("ssd", ("fold", "ssd")),
    Row("ssd_summary", ("fold", "ssd")),
    Row("mamba3_scan", (*SCAN, "sigmoid")),
    Row("mamba3_summary", (*SCAN, "sigmoid")),
    Row("gated_delta", ("fold", "gated_delta")),
    Row("gated_delta_update"),
    Row("gated_delta_summary", ("fold", "gated_delta")),
    Row("gated_linear_attention", ("fold", "ssd", "channel_decay")),
    Row("gated_linear_attention_update"),
    Row("gated_linear_attention_summary", ("fold", "ssd", "channel_decay")),
    Row("hgrn", ("linear_scan",)),
    Row("hgrn_update"),
    Row("hgrn_summary", ("linear_scan",)),
    Row("rg_lru", ("driven", "linear_scan", "sigmoid", "softplus")),
    Row("rg_lru_update", ("sigmoid", "softplus")),
    Row("rg_lru_summary", ("driven", "linear_scan", "sigmoid", "softplus")),
    Row("rwkv4", (*SCAN, "weighted_means")),
    Row("rwkv4_update"),
    Row("rwkv4_summary", (*SCAN, "weighted_means")),
    Row("selective_state_update", ("sigmoid", "silu", "softplus")),
    Row("causal_conv1d", ("causal_conv1d",)),
    Row("rms_norm", ("rms_norm", "sigmoid", "silu")),
    Row("scan", (*MODES, "chunks"), ("fft", "linalg")),
    Row("scan_summary", ("linear_scan", "exp", "expm"), ("linalg",)),
    Row("step", MODES, ("linalg",)),
    Row("frequency_response", (), ("linalg",)),
    Row("poles", ("eigvals",)),
    Row("to_dense"),
    Row("to_diagonal"),
    Row("eigenvector_condition"),
    Row("to_rational", (*FFT, "eigvals"), ("fft",)),
    Row("to_scipy"),
    Row("from_scipy"),
    Row("to_control"),
    Row("from_control"),
    Row("quantize"),
    Row("dequantize"),
    Row("special.phi1"),
    Row("special.erf", ("erf",)),
    Row("special.sigmoid", ("sigmoid",)),
    Row("special.softplus", ("softplus",)),
    Row("special.gelu", ("gelu",)),
    Row("special.silu", ("silu", "sigmoid")),
    Row("special.relu", ("relu",)),
    Row("special.tanh"),
    *(Row(cases.function, cases.rests_on, cases.extensions) for cases in LAYERS.values()),
    Row("models.LanguageModel", ("selective_scan", *SCAN, *GATES)),
    Row("models.MambaLM", ("selective_scan", *SCAN, *GATES)),
    Row("models.Mamba2LM", ("fold", "ssd", *GATES)),
    Row("models.Mamba3LM", (*SCAN, *GATES)),
    Row("models.HGRN2LM", ("fold", "channel_decay", *GATES)),
    Row("models.RWKV4LM", (*SCAN, "sigmoid", "affine")),
    Row("models.RWKV7LM", ("fold", "sigmoid", "affine")),
    Row("models.RecurrentGemmaLM", ("attention", "linear_scan", *GATES)),
    Row("models.XLSTMLM", ("fold", "ssd", *GATES)),
    Row("models.SaShiMi", (*LONG, *SCAN, *MIXING), ("fft", "linalg")),
    Row("models.SequenceModel", (*LONG, *SCAN, *MIXING), ("fft",)),
    Row("save"),
    Row("load"),
    Row("from_pretrained"),
    Row("save_pretrained"),
)
BY_NAME = {row.function: row for row in ROWS}


def function_of(definition: str) -> str:
    """The row of a layer or model, by its name."""
    return f"layers.{definition}" if definition in LAYERS else f"models.{definition}"


# Public names that compute nothing themselves.
NOT_COMPUTING = frozenset(
    {
        "DPLR", "DTypeError", "Dense", "Diagonal", "DomainError", "MissingFileError", "MissingPackageError",
        "MixedArraysError", "OptionError", "Rational", "SSMError", "ShapeError", "adapters", "backends", "distributed",
        "importers", "layers", "models", "plot", "show_backends", "special", "use_backend",
    }
)  # fmt: skip

# Limits that the tests of transformations know of, per backend.
LIMITS = {
    "torch": (
        "torch.compile of torch.func.grad is not supported: compile the forward pass, and call backward.",
        "hippo_project compiles to one graph for legs by bilinear, euler and backward_euler, and hippo_reconstruct for "
        "Legendre's measures: the constants of the others are computed on the host.",
    ),
    "jax": ("poles of a Dense system are eigenvalues that the host computes: not under jit.",),
}


def support_table_markdown() -> str:
    """Function x backend as a Markdown table: "fused", "generic", or the reason why not."""
    title = {"other": "any other array-API library"}
    head = ["function", *(title.get(f, f) for f in FAMILIES)]
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line([f"`{row.function}`", *(row.support(f) for f in FAMILIES)]) for row in ROWS]
    lines.append(_line(["half precision inputs", *(HALF_PRECISION[f] for f in FAMILIES)]))
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
