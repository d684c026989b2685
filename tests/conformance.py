"""The models of tests/test_conformance.py: for each model_type tiny random models of `transformers`, and how
their logits are compared with the readout that `load_model` finds in the saved checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
from built_models import tensor

from verify.kernel import Readout, Tensor
from verify.kernel.tensor import unit_exponent
from verify.models import Model, load_model
from verify.models.in_place import LOOKED, TOLERANCES, Seen, captured, probes

ROWS, TOLERANCE, BITS = 61, TOLERANCES["F32"], 200

Numbers = list[Any]


@dataclass(frozen=True)
class Case:
    """One tiny model.

    model_type, variant: how it is called. of: its class. config: keyword arguments of its configuration.
    at: the module whose input is captured; empty for the one that the gain's name gives.
    scale, cap: what the model does to its logits after the readout; noted: words that a note must hold.
    roles: what the readout must consist of. seq2seq, audio: what it is fed.
    zeroed: parameters that are zero. copied: a parameter and the one that it is a copy of.
    part: the submodule that is run, where the whole cannot be run on text. head: give it a head of its own,
    though its class ties whatever the configuration says, as older checkpoints have it.
    """

    model_type: str
    variant: str
    of: str
    config: dict[str, Any]
    roles: str = "unembedding gain shift"
    at: str = ""
    scale: float = 1.0
    cap: float | None = None
    noted: tuple[str, ...] = ()
    seq2seq: bool = False
    audio: bool = False
    zeroed: tuple[str, ...] = ()
    copied: tuple[str, str] | None = None
    part: str = ""
    head: bool = False

    @property
    def name(self) -> str:
        return f"{self.model_type}-{self.variant}"


EPS = 3e-3
HIDDEN = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**HIDDEN, "num_key_value_heads": 2, "max_position_embeddings": 32, "rms_norm_eps": EPS}
LAYERED = {**HIDDEN, "num_key_value_heads": 2, "max_position_embeddings": 32, "layer_norm_eps": EPS}
MASKED = {**HIDDEN, "max_position_embeddings": 40, "layer_norm_eps": EPS, "type_vocab_size": 2}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "layer_norm_epsilon": EPS}
NEO = {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
OPT = {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
BLOOM = {"hidden_size": 16, "n_layer": 2, "n_head": 4, "layer_norm_epsilon": EPS}
FALCON = {**HIDDEN, "layer_norm_epsilon": EPS, "ffn_hidden_size": 24}
MPT = {"d_model": 16, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "layer_norm_epsilon": EPS}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "decoder_sparse_step": 1}
GEMMA = {**LLAMA, "head_dim": 4}
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "layer_norm_epsilon": EPS}
BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
}
WHISPER: dict[str, Any] = {
    **{k: v for k, v in BART.items() if k != "max_position_embeddings"},
    "num_mel_bins": 8,
}
WHISPER |= {"max_source_positions": 10, "max_target_positions": 32, "begin_suppress_tokens": None}
MAMBA = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "layer_norm_epsilon": EPS}
ALBERT = {**MASKED, "embedding_size": 12, "num_hidden_groups": 1}
DISTIL = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 32}
LLAMA4 = {**LLAMA, "head_dim": 4, "intermediate_size_mlp": 24, "num_local_experts": 2}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
GEMMA3_VISION = {**VISION, "image_size": 28, "patch_size": 14, "vision_use_head": False}
LLAMA4_VISION = {**VISION, "image_size": 28, "patch_size": 14, "vision_output_dim": 16}
LLAMA4_VISION |= {"projector_input_dim": 16, "projector_output_dim": 16}
PIXTRAL = {**VISION, "image_size": 28, "patch_size": 14, "head_dim": 8}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
BIASED = "unembedding gain shift bias"
GAIN = "unembedding gain"


def both(model_type: str, of: str, config: dict[str, Any], roles: str, **more: Any) -> list[Case]:
    """The model with and without tied embeddings."""
    return [
        Case(model_type, variant, of, config | tie, roles, **more)
        for variant, tie in (("tied", TIED), ("untied", UNTIED))
    ]


def masked(
    model_type: str,
    of: str,
    config: dict[str, Any],
    bias: str = "lm_head.bias",
    copy: str = "lm_head.decoder.bias",
) -> list[Case]:
    """`both` for a head whose bias is stored twice."""
    return both(model_type, of, config, BIASED, noted=("outer set",), copied=(copy, bias))


def mistral3(inner: str) -> dict[str, Any]:
    text = {**LLAMA, "head_dim": 4, "model_type": inner, "vocab_size": ROWS, **UNTIED}
    return {"text_config": text, "vision_config": {**PIXTRAL, "model_type": "pixtral"}, **UNTIED}


CASES: list[Case] = [
    *both("gpt2", "GPT2LMHeadModel", GPT2, "unembedding gain shift"),
    *both("gpt_bigcode", "GPTBigCodeForCausalLM", GPT2, "unembedding gain shift"),
    *both("gpt_neo", "GPTNeoForCausalLM", NEO | {"layer_norm_epsilon": EPS}, "unembedding gain shift"),
    *both("gptj", "GPTJForCausalLM", GPT2 | {"rotary_dim": 4}, BIASED),
    *both("codegen", "CodeGenForCausalLM", GPT2 | {"rotary_dim": 4}, BIASED),
    *both("gpt_neox", "GPTNeoXForCausalLM", MASKED, "unembedding gain shift"),
    *both("opt", "OPTForCausalLM", OPT | {"word_embed_proj_dim": 16}, "unembedding gain shift"),
    Case(
        "opt",
        "post-norm",
        "OPTForCausalLM",
        OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
        noted=("outer set",),
    ),
    Case(
        "opt",
        "norm-removed",
        "OPTForCausalLM",
        OPT | {"word_embed_proj_dim": 16, "_remove_final_layer_norm": True},
        "unembedding",
        at="lm_head",
        noted=("no norm",),
    ),
    Case(
        "opt",
        "norm-removed-projected",
        "OPTForCausalLM",
        OPT | {"word_embed_proj_dim": 12, "_remove_final_layer_norm": True},
        "unembedding",
        at="lm_head",
        noted=("no norm",),
    ),
    Case(
        "opt",
        "post-norm-projected",
        "OPTForCausalLM",
        OPT | {"word_embed_proj_dim": 12, "do_layer_norm_before": False},
        "unembedding",
        at="lm_head",
        noted=("projection",),
    ),
    *both("bloom", "BloomForCausalLM", BLOOM, "unembedding gain shift"),
    *both("falcon", "FalconForCausalLM", FALCON, "unembedding gain shift"),
    Case("falcon", "new-decoder", "FalconForCausalLM", FALCON | {"new_decoder_architecture": True}),
    *both("mpt", "MptForCausalLM", MPT, GAIN),
    *both("llama", "LlamaForCausalLM", LLAMA, GAIN),
    Case(
        "llama", "with-biases", "LlamaForCausalLM", LLAMA | {"attention_bias": True, "mlp_bias": True}, GAIN
    ),
    *both("llama4_text", "Llama4ForCausalLM", LLAMA4, GAIN),
    Case(
        "llama4",
        "untied",
        "Llama4ForConditionalGeneration",
        {"text_config": {**LLAMA4, "vocab_size": ROWS}, "vision_config": LLAMA4_VISION},
        GAIN,
        part="language_model",
    ),
    *both("mistral", "MistralForCausalLM", LLAMA, GAIN),
    *both("ministral", "MinistralForCausalLM", LLAMA | {"head_dim": 4}, GAIN),
    *both("ministral3", "Ministral3ForCausalLM", LLAMA | {"head_dim": 4}, GAIN),
    Case("mistral3", "mistral", "Mistral3ForConditionalGeneration", mistral3("mistral"), GAIN),
    Case("mistral3", "ministral3", "Mistral3ForConditionalGeneration", mistral3("ministral3"), GAIN),
    *both("mixtral", "MixtralForCausalLM", LLAMA | {"num_local_experts": 4}, GAIN),
    *both("qwen2", "Qwen2ForCausalLM", LLAMA, GAIN),
    *both("qwen2_moe", "Qwen2MoeForCausalLM", LLAMA | MOE | {"shared_expert_intermediate_size": 12}, GAIN),
    *both("qwen3", "Qwen3ForCausalLM", LLAMA | {"head_dim": 4}, GAIN),
    *both("qwen3_moe", "Qwen3MoeForCausalLM", LLAMA | MOE | {"head_dim": 4}, GAIN),
    *both("gemma", "GemmaForCausalLM", GEMMA, GAIN),
    *both(
        "gemma2",
        "Gemma2ForCausalLM",
        GEMMA | {"final_logit_softcapping": 7.0},
        GAIN,
        cap=7.0,
        noted=("final_logit_softcapping",),
    ),
    Case("gemma2", "no-soft-cap", "Gemma2ForCausalLM", GEMMA | {"final_logit_softcapping": None}, GAIN),
    *both("gemma3_text", "Gemma3ForCausalLM", GEMMA, GAIN),
    Case(
        "gemma3_text",
        "soft-cap",
        "Gemma3ForCausalLM",
        GEMMA | {"final_logit_softcapping": 7.0},
        GAIN,
        cap=7.0,
        noted=("final_logit_softcapping",),
    ),
    Case(
        "gemma3",
        "tied",
        "Gemma3ForConditionalGeneration",
        {
            "text_config": {**GEMMA, "vocab_size": ROWS},
            "vision_config": GEMMA3_VISION,
            "mm_tokens_per_image": 4,
        },
        GAIN,
    ),
    *both("phi", "PhiForCausalLM", LAYERED, BIASED),
    *both("phi3", "Phi3ForCausalLM", LLAMA | {"pad_token_id": 0}, GAIN),
    *both("stablelm", "StableLmForCausalLM", LAYERED, "unembedding gain shift"),
    *both(
        "starcoder2",
        "Starcoder2ForCausalLM",
        {k: v for k, v in LAYERED.items() if "eps" not in k} | {"norm_epsilon": EPS},
        "unembedding gain shift",
    ),
    *both("olmo", "OlmoForCausalLM", {**HIDDEN}, "unembedding", at="model.norm"),
    *both("olmo2", "Olmo2ForCausalLM", LLAMA, GAIN),
    *both("olmo3", "Olmo3ForCausalLM", LLAMA, GAIN),
    *both(
        "cohere",
        "CohereForCausalLM",
        LAYERED | {"logit_scale": 0.37},
        GAIN,
        scale=0.37,
        noted=("logit_scale",),
    ),
    Case("cohere", "qk-norm", "CohereForCausalLM", LAYERED | {"use_qk_norm": True}, GAIN, scale=0.0625),
    *both(
        "cohere2",
        "Cohere2ForCausalLM",
        LAYERED | {"logit_scale": 0.37},
        GAIN,
        scale=0.37,
        noted=("logit_scale",),
    ),
    *both(
        "granite",
        "GraniteForCausalLM",
        LLAMA | {"logits_scaling": 2.7},
        GAIN,
        scale=1 / 2.7,
        noted=("logits_scaling",),
    ),
    *both("mamba", "MambaForCausalLM", MAMBA, GAIN),
    Case(
        "t5",
        "tied-scaled",
        "T5ForConditionalGeneration",
        T5 | TIED,
        GAIN,
        scale=1 / sqrt(16),
        noted=("d_model ** -0.5",),
        seq2seq=True,
    ),
    Case(
        "t5",
        "v1.1-gated",
        "T5ForConditionalGeneration",
        T5 | UNTIED | {"feed_forward_proj": "gated-gelu"},
        GAIN,
        seq2seq=True,
    ),
    Case("t5", "untied-head", "T5ForConditionalGeneration", T5, GAIN, seq2seq=True, head=True),
    Case("mt5", "untied-head", "MT5ForConditionalGeneration", T5, GAIN, seq2seq=True, head=True),
    Case("mt5", "tied", "MT5ForConditionalGeneration", T5, GAIN, seq2seq=True),
    Case("bart", "biased", "BartForConditionalGeneration", BART, BIASED, seq2seq=True, noted=("post-norm",)),
    Case("bart", "untied", "BartForConditionalGeneration", BART | UNTIED, BIASED, seq2seq=True),
    Case(
        "bart",
        "bias-of-zeros",
        "BartForConditionalGeneration",
        BART | {"scale_embedding": True},
        seq2seq=True,
        zeroed=("final_logits_bias",),
        noted=("all zeros",),
    ),
    Case("marian", "shared", "MarianMTModel", BART | {"pad_token_id": 0}, BIASED, seq2seq=True),
    Case(
        "marian",
        "own-vocabulary",
        "MarianMTModel",
        BART | {"pad_token_id": 0, "share_encoder_decoder_embeddings": False, "decoder_vocab_size": ROWS - 4},
        BIASED,
        seq2seq=True,
    ),
    Case("whisper", "tied", "WhisperForConditionalGeneration", WHISPER, audio=True),
    Case("whisper", "untied", "WhisperForConditionalGeneration", WHISPER | UNTIED, audio=True),
    *masked("bert", "BertForMaskedLM", MASKED, "cls.predictions.bias", "cls.predictions.decoder.bias"),
    Case("bert", "pretraining", "BertForPreTraining", MASKED, BIASED),
    Case("bert", "decoder", "BertLMHeadModel", MASKED | {"is_decoder": True}, BIASED),
    *masked("roberta", "RobertaForMaskedLM", MASKED),
    Case("roberta", "decoder", "RobertaForCausalLM", MASKED | {"is_decoder": True}, BIASED),
    *masked("xlm-roberta", "XLMRobertaForMaskedLM", MASKED),
    *masked("camembert", "CamembertForMaskedLM", MASKED),
    *both("distilbert", "DistilBertForMaskedLM", DISTIL, BIASED, noted=("outer set",)),
    *masked("albert", "AlbertForMaskedLM", ALBERT, "predictions.bias", "predictions.decoder.bias"),
    Case("albert", "pretraining", "AlbertForPreTraining", ALBERT, BIASED),
    *both("electra", "ElectraForMaskedLM", MASKED | {"embedding_size": 12}, BIASED, noted=("outer set",)),
    Case(
        "electra",
        "decoder",
        "ElectraForCausalLM",
        MASKED | {"embedding_size": 12, "is_decoder": True},
        BIASED,
    ),
]


def build(case: Case) -> Any:
    """The model, every parameter and the logit bias filled with odd numbers, in float32, for evaluation."""
    import torch
    import transformers

    of = getattr(transformers, case.of)
    size = {} if "text_config" in case.config else {"vocab_size": ROWS}
    small = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 1}
    config = of.config_class(**size | small | case.config)
    config._attn_implementation = "eager"
    model = of(config).eval()
    generator = torch.Generator().manual_seed(sum(map(ord, case.name)))
    state = dict(model.named_parameters()) | {
        name: value for name, value in model.named_buffers() if name == "final_logits_bias"
    }
    with torch.no_grad():
        for name, value in sorted(state.items()):
            low, high = (0.5, 2.0) if _is_gain(name, value) else (-0.5, 0.5)
            value.uniform_(low, high, generator=generator)
            if name in case.zeroed:
                value.zero_()
        if case.copied is not None and case.copied[0] in state:  # else they are one parameter
            state[case.copied[0]].copy_(state[case.copied[1]])
    return model


def _is_gain(name: str, value: Any) -> bool:
    return value.ndim == 1 and name.endswith("weight") and any(x in name.lower() for x in ("norm", "ln"))


def feed(case: Case, model: Any) -> Any:
    """Logits of the model for a random sentence, one row a position."""
    import torch

    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, ROWS - 6, (1, LOOKED), generator=generator)
    inputs: dict[str, Any] = {"input_ids": ids}
    if case.seq2seq:
        inputs["decoder_input_ids"] = ids.flip(1)
    if case.audio:
        inputs = {"input_features": torch.rand((1, 8, 20), generator=generator), "decoder_input_ids": ids}
    with torch.no_grad():
        output = model(**inputs)
    logits = output.prediction_logits if "prediction_logits" in output else output.logits
    return logits[0]


def norm_module(case: Case, model: Any, readout: Readout) -> Any:
    """The module that the readout begins with: where the tensor named as its gain is a parameter."""
    if case.at:
        return _submodule(model, case.at)
    assert readout.gain is not None
    return _submodule(model, readout.gain.name.rpartition(".")[0])


def _submodule(model: Any, name: str) -> Any:
    """A module by its name; files of wrapped models put the two prefixes the other way round."""
    for spelling in (name, name.replace("language_model.model.", "model.language_model.")):
        try:
            return model.get_submodule(spelling)
        except AttributeError:
            continue
    raise AttributeError(name)


def exact(tensor: Tensor, offset: int = 0) -> Numbers:
    """A tensor's values, as mpmath numbers without rounding."""
    unit = unit_exponent(tensor.dtype)
    rows = [[mpmath.ldexp(x, unit) + offset for x in row] for row in tensor.integers(range(tensor.shape[0]))]
    return rows if len(tensor.shape) == 2 else [row[0] for row in rows]


def logits_of(readout: Readout, r: Numbers) -> Numbers:
    """`w_j . (gain * N(r) + shift) + bias_j` at the residual r, at 200 bits."""
    with mpmath.workprec(BITS):
        d = readout.d
        gain = [mpmath.mpf(1)] * d if readout.gain is None else exact(readout.gain, readout.gain_offset)
        shift = [mpmath.mpf(0)] * d if readout.shift is None else exact(readout.shift)
        bias = [mpmath.mpf(0)] * readout.vocabulary if readout.bias is None else exact(readout.bias)
        y = [mpmath.mpf(float(x)) for x in r]
        if readout.norm == "layernorm":
            mean = mpmath.fsum(y) / d
            y = [x - mean for x in y]
        if readout.norm != "none":
            epsilon = mpmath.mpf(readout.epsilon.numerator) / readout.epsilon.denominator
            root = mpmath.sqrt(mpmath.fsum(x * x for x in y) / d + epsilon)
            y = [x / root for x in y]
        h = [g * x + b for g, x, b in zip(gain, y, shift, strict=True)]
        rows = exact(readout.unembedding)
        return [mpmath.fdot(row, h) + c for row, c in zip(rows, bias, strict=True)]


@dataclass(frozen=True)
class Run:
    """A saved and loaded model, the residuals that entered its norm and the logits that it gave."""

    case: Case
    model: Model
    residuals: Any
    logits: Any

    def difference(self, readout: Readout | None = None) -> float:
        """The largest difference of a logit, relative to the largest logit of its position."""
        seen = Seen(self.residuals, self.logits, TOLERANCE)
        shares = seen.differences(readout or self.model.readout, self.case.scale, self.case.cap)
        return float(shares.max())


def save(case: Case, folder: Path) -> Any:
    """Build the model and save it as `transformers` does; the model."""
    model = build(case)
    if case.head:
        give_head(model)
    model.save_pretrained(folder)
    if case.head:
        path = folder / "config.json"
        config = {k: v for k, v in json.loads(path.read_text()).items() if k != "scale_decoder_outputs"}
        path.write_text(json.dumps(config | UNTIED))
        model = type(model).from_pretrained(folder).eval()
    return model


def give_head(model: Any) -> None:
    """An output matrix of the model's own."""
    import torch

    torch.manual_seed(3)
    model.lm_head.weight = torch.nn.Parameter(torch.rand(ROWS, 16) - 0.5)


def run(case: Case, folder: Path) -> Run:
    """Save the model, load it as any other, and feed it."""
    theirs = save(case, folder)
    return compare(case, theirs, load_model(str(folder)))


def compare(case: Case, theirs: Any, ours: Model) -> Run:
    """Feed the model of `transformers` and keep what enters its norm and what comes out."""
    with captured(norm_module(case, theirs, ours.readout), probes(ours.readout)) as seen:
        logits = feed(case, theirs.get_submodule(case.part))
    assert len(seen) == 1
    return Run(case, ours, seen[0].double().numpy(), logits.double().numpy())


def wrong_readouts(readout: Readout) -> dict[str, Readout]:
    """The readout with one mistake each: what a comparison that can fail must find."""
    other = tensor("other", np.random.default_rng(5).uniform(-1, 1, readout.unembedding.shape))
    wrong = {"other_matrix": replace(readout, unembedding=other)}
    if readout.norm != "none":
        wrong["other_epsilon"] = replace(readout, epsilon=readout.epsilon * Fraction(101, 100))
        swapped = "rmsnorm" if readout.norm == "layernorm" else "layernorm"
        wrong["other_norm"] = replace(readout, norm=swapped)
    if readout.gain is not None:
        wrong["gain_dropped"] = replace(readout, gain=None, gain_offset=0)
        wrong["other_offset"] = replace(readout, gain_offset=1 - readout.gain_offset)
    if readout.shift is not None:
        wrong["shift_dropped"] = replace(readout, shift=None)
        wrong["gain_and_shift_swapped"] = replace(readout, gain=readout.shift, shift=readout.gain)
    if readout.bias is not None:
        wrong["bias_dropped"] = replace(readout, bias=None)
    return wrong
