"""STATEMENT. Which tensors, which norm and which epsilon an architecture's last step uses, as data.

Wrong here = a true claim about the wrong tensors. One entry a `model_type` of config.json: names are looked
for in the order given, and what acts on the logits without being named is refused, not ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_RESTRICTED = (
    "the norm is fed GELU(dense(r)), a restricted set: the domain `readout` is an outer set, so UNSPEAKABLE "
    "carries over to the model and SPEAKABLE need not"
)
_ALBERT_EPSILON = (
    "early implementations of this head used epsilon 1e-5 whatever layer_norm_eps says; any epsilon > 0 "
    "gives the same domain `readout`"
)
_PROCESSORS = "logit processors (suppressed or forced tokens) are outside the claim"


@dataclass(frozen=True)
class Architecture:
    """The last step of one `model_type`, in the tensor names of its checkpoints.

    classes: entries of config.json's `architectures` that this describes; other heads are refused.
    norm: layernorm, rmsnorm or none.
    embedding: names of the input embedding, the unembedding when tied. head: names of the untied unembedding.
    gain, shift, bias: names of the norm's gain and shift and of the logit bias. An empty tuple means the
    architecture has none; otherwise one must be there, and several of one role must be equal.
    tied_default: `tie_word_embeddings` when config.json does not say.
    width: the config key of the unembedding's width d.
    epsilon_keys: config keys of epsilon, the first one present counts.
    epsilon_default: exact decimal, used when no key is present.
    gain_offset: 1 where the checkpoint stores gain - 1.
    must_be: config key -> the only values under which this entry holds (an absent key is fine).
    """

    classes: tuple[str, ...]
    norm: str
    embedding: tuple[str, ...]
    head: tuple[str, ...]
    gain: tuple[str, ...]
    epsilon_default: str
    shift: tuple[str, ...] = ()
    bias: tuple[str, ...] = ()
    tied_default: bool = True
    width: str = "hidden_size"
    epsilon_keys: tuple[str, ...] = ()
    gain_offset: int = 0
    must_be: dict[str, tuple[object, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _llama_like(name: str) -> Architecture:
    """Pre-norm decoder with RMSNorm and no bias anywhere in the head."""
    return Architecture(
        classes=(name,),
        norm="rmsnorm",
        embedding=("model.embed_tokens.weight", "embed_tokens.weight"),
        head=("lm_head.weight",),
        gain=("model.norm.weight", "norm.weight"),
        tied_default=False,
        epsilon_keys=("rms_norm_eps",),
        epsilon_default="1e-6",
    )


ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(
        classes=("GPT2LMHeadModel", "GPT2DoubleHeadsModel"),
        norm="layernorm",
        embedding=("transformer.wte.weight", "wte.weight"),
        head=("lm_head.weight",),
        gain=("transformer.ln_f.weight", "ln_f.weight"),
        shift=("transformer.ln_f.bias", "ln_f.bias"),
        width="n_embd",
        epsilon_keys=("layer_norm_epsilon",),
        epsilon_default="1e-5",
    ),
    "llama": _llama_like("LlamaForCausalLM"),
    "mistral": _llama_like("MistralForCausalLM"),
    "qwen2": _llama_like("Qwen2ForCausalLM"),
    "whisper": Architecture(
        classes=("WhisperForConditionalGeneration", "WhisperForCausalLM"),
        norm="layernorm",
        embedding=("model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
        head=("proj_out.weight",),
        gain=("model.decoder.layer_norm.weight", "decoder.layer_norm.weight"),
        shift=("model.decoder.layer_norm.bias", "decoder.layer_norm.bias"),
        width="d_model",
        epsilon_default="1e-5",
        notes=(_PROCESSORS,),
    ),
    "albert": Architecture(
        classes=("AlbertForMaskedLM", "AlbertForPreTraining"),
        norm="layernorm",
        embedding=("albert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
        head=("predictions.decoder.weight",),
        gain=("predictions.LayerNorm.weight",),
        shift=("predictions.LayerNorm.bias",),
        bias=("predictions.bias", "predictions.decoder.bias"),
        width="embedding_size",
        epsilon_keys=("layer_norm_eps",),
        epsilon_default="1e-12",
        notes=(_RESTRICTED, _ALBERT_EPSILON),
    ),
    "bert": Architecture(
        classes=("BertForMaskedLM", "BertForPreTraining", "BertLMHeadModel"),
        norm="layernorm",
        embedding=("bert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
        head=("cls.predictions.decoder.weight",),
        gain=("cls.predictions.transform.LayerNorm.weight", "cls.predictions.transform.LayerNorm.gamma"),
        shift=("cls.predictions.transform.LayerNorm.bias", "cls.predictions.transform.LayerNorm.beta"),
        bias=("cls.predictions.bias", "cls.predictions.decoder.bias"),
        epsilon_keys=("layer_norm_eps",),
        epsilon_default="1e-12",
        notes=(_RESTRICTED,),
    ),
}

# Config keys that act on the logits after the readout. Positive: no argmax changes, and a note says so.
POSITIVE_SCALES = (
    "logit_scale",
    "logits_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier_scale",
)
POSITIVE_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")

# Config keys that change the readout in a way no entry models, with the only values that do not.
MUST_BE: dict[str, tuple[object, ...]] = {
    "_remove_final_layer_norm": (False,),
    "lm_head_bias": (False,),
    "use_lm_head_bias": (False,),
    "apply_final_norm": (True,),
}

# Tensors that add to the logits wherever they occur: an entry names them as its bias, or they are refused.
LOGIT_TENSORS = ("final_logits_bias", "lm_head.bias")
