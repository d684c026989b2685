"""STATEMENT. Which tensors, which norm and which epsilon an architecture's last step uses, as data.

Wrong here = a true claim about the wrong tensors. One entry a `model_type` of config.json: names are looked
for in the order given, and what acts on the logits without being named is refused, not ignored.
Every entry is compared with the model code of `transformers` by tests/test_conformance.py; docs/models.md
shows the results.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

_RESTRICTED = (
    "the norm is fed GELU(dense(r)), a restricted set: the domain `readout` is an outer set, so UNSPEAKABLE "
    "carries over to the model and SPEAKABLE need not"
)
_POST_NORM = (
    "the norm is the last layer's own (post-norm), fed a bounded state plus that layer's output, a "
    "restricted set: the domain `readout` is an outer set, so UNSPEAKABLE carries over to the model and "
    "SPEAKABLE need not"
)
_NO_NORM = (
    "no norm stands before the unembedding: the state is the vector that the unembedding is multiplied with; "
    "where a projection or the last layer's own norm makes it, the domain is an outer set, so UNSPEAKABLE "
    "carries over to the model and SPEAKABLE need not"
)
_ALBERT_EPSILON = (
    "early implementations of this head used epsilon 1e-5 whatever layer_norm_eps says; any epsilon > 0 "
    "gives the same domain `readout`"
)
_PROCESSORS = "logit processors (suppressed or forced tokens) are outside the claim"
_T5_SCALE = (
    "where embeddings are tied the decoder's output is multiplied by d_model ** -0.5: positive and without "
    "a bias, so it changes no argmax and is left out: margins are before it"
)


@dataclass(frozen=True)
class Architecture:
    """The last step of one `model_type`, in the tensor names of its checkpoints.

    classes: entries of config.json's `architectures` that this describes; other heads are refused.
    norm: layernorm, rmsnorm or none.
    embedding: names of the input embedding, the unembedding when tied. head: names of the untied unembedding.
    gain, shift, bias: names of the norm's gain and shift and of the logit bias. An empty tuple means the
    architecture has none; otherwise one must be there, and several of one role must be equal.
    bias_may_lack: whether a checkpoint without the bias has a bias of zeros.
    untied_bias: which name of the bias acts where the matrix is untied, and must then be there: the others
    reach the logits through tying alone. Empty where tying changes nothing.
    layers: the config key of the number of layers, where names hold `{last}`, the number of the last one.
    absent: beginnings of names that no checkpoint of this entry holds.
    tied_default: `tie_word_embeddings` when config.json does not say.
    width, rows: config keys of the unembedding's shape, d and V, the first one present counts.
    rows_default: V when no key is present; None where a key must be.
    epsilon_keys: config keys of epsilon, the first one present counts.
    epsilon_default: exact decimal, used when no key is present.
    gain_offset: 1 where the checkpoint stores gain - 1.
    text: the key of the table inside config.json that describes the language model, empty where none does.
    must_be: config key -> the only values under which this entry holds; None stands for an absent key.
    own_code: the module that `auto_map` of early checkpoints names, with the same last step as this entry.
    after: what happens to the logits after the readout, with the config key that says by how much, if any;
    such keys are checked by value below.
    """

    classes: tuple[str, ...]
    norm: str
    embedding: tuple[str, ...]
    head: tuple[str, ...]
    gain: tuple[str, ...] = ()
    epsilon_default: str = ""
    shift: tuple[str, ...] = ()
    bias: tuple[str, ...] = ()
    bias_may_lack: bool = False
    untied_bias: str = ""
    layers: str = ""
    absent: tuple[str, ...] = ()
    tied_default: bool = True
    width: tuple[str, ...] = ("hidden_size",)
    rows: tuple[str, ...] = ("vocab_size",)
    rows_default: int | None = None
    epsilon_keys: tuple[str, ...] = ()
    gain_offset: int = 0
    text: str = ""
    must_be: dict[str, tuple[object, ...]] = field(default_factory=dict)
    own_code: str = ""
    after: str = ""
    notes: tuple[str, ...] = ()


def _llama_like(name: str, **changes: Any) -> Architecture:
    """Pre-norm decoder with RMSNorm and no bias anywhere in the head."""
    plain = Architecture(
        classes=(name,),
        norm="rmsnorm",
        embedding=("model.embed_tokens.weight", "embed_tokens.weight"),
        head=("lm_head.weight",),
        gain=("model.norm.weight", "norm.weight"),
        tied_default=False,
        epsilon_keys=("rms_norm_eps",),
        epsilon_default="1e-6",
    )
    return replace(plain, **changes)


def _gpt2_like(name: str, **changes: Any) -> Architecture:
    """Pre-norm decoder with LayerNorm `ln_f` below `transformer`."""
    plain = Architecture(
        classes=(name,),
        norm="layernorm",
        embedding=("transformer.wte.weight", "wte.weight"),
        head=("lm_head.weight",),
        gain=("transformer.ln_f.weight", "ln_f.weight"),
        shift=("transformer.ln_f.bias", "ln_f.bias"),
        width=("n_embd", "hidden_size"),
        epsilon_keys=("layer_norm_epsilon",),
        epsilon_default="1e-5",
    )
    return replace(plain, **changes)


def _wrapped(inner: Architecture, name: str, **changes: Any) -> Architecture:
    """A model of text and images around `inner`: its names have a prefix, its keys a table of their own."""
    prefixes = ("language_model.model.", "model.language_model.")
    return replace(
        inner,
        classes=(name,),
        embedding=tuple(f"{prefix}embed_tokens.weight" for prefix in prefixes),
        head=("language_model.lm_head.weight", "lm_head.weight"),
        gain=tuple(f"{prefix}norm.weight" for prefix in prefixes),
        text="text_config",
        **changes,
    )


def _roberta_like(*classes: str) -> Architecture:
    """Encoder with the head dense, GELU, LayerNorm, decoder and bias."""
    return Architecture(
        classes=classes,
        norm="layernorm",
        embedding=("roberta.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
        head=("lm_head.decoder.weight",),
        gain=("lm_head.layer_norm.weight",),
        shift=("lm_head.layer_norm.bias",),
        bias=("lm_head.bias", "lm_head.decoder.bias"),
        untied_bias="lm_head.decoder.bias",
        epsilon_keys=("layer_norm_eps",),
        epsilon_default="1e-12",
        notes=(_RESTRICTED,),
    )


def _t5_like(*classes: str) -> Architecture:
    """Encoder and decoder with RMSNorm; the decoder's output is scaled when tied."""
    return Architecture(
        classes=classes,
        norm="rmsnorm",
        embedding=("shared.weight", "decoder.embed_tokens.weight"),
        head=("lm_head.weight",),
        gain=("decoder.final_layer_norm.weight",),
        width=("d_model",),
        epsilon_keys=("layer_norm_epsilon",),
        epsilon_default="1e-6",
        after="times d_model ** -0.5 when tied",
        notes=(_T5_SCALE,),
    )


def _bart_like(*classes: str, **changes: Any) -> Architecture:
    """Encoder and decoder whose last norm is the last decoder layer's own."""
    last = "decoder.layers.{last}.final_layer_norm"
    return Architecture(
        classes=classes,
        norm="layernorm",
        head=("lm_head.weight",),
        gain=(f"model.{last}.weight", f"{last}.weight"),
        shift=(f"model.{last}.bias", f"{last}.bias"),
        bias=("final_logits_bias",),
        bias_may_lack=True,
        layers="decoder_layers",
        absent=("model.decoder.layer_norm.", "decoder.layer_norm."),
        width=("d_model",),
        epsilon_default="1e-5",
        must_be={"normalize_before": (False, None), "add_final_layer_norm": (False, None)},
        notes=(_POST_NORM, _PROCESSORS),
        **changes,
    )


_GEMMA = _llama_like("GemmaForCausalLM", tied_default=True, gain_offset=1)
_SOFTCAP = "soft-cap final_logit_softcapping"
_GEMMA3 = _llama_like(
    "Gemma3ForCausalLM", tied_default=True, gain_offset=1, rows_default=262208, after=_SOFTCAP
)
_LLAMA4 = _llama_like("Llama4ForCausalLM", epsilon_default="1e-5")
_OLMO2 = _llama_like("Olmo2ForCausalLM", epsilon_default="1e-5")
_COHERE = _llama_like(
    "CohereForCausalLM",
    norm="layernorm",
    tied_default=True,
    epsilon_keys=("layer_norm_eps",),
    epsilon_default="1e-5",
    after="times logit_scale",
)
_OPT = Architecture(
    classes=("OPTForCausalLM",),
    norm="layernorm",
    embedding=("model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    head=("lm_head.weight",),
    gain=("model.decoder.final_layer_norm.weight", "decoder.final_layer_norm.weight"),
    shift=("model.decoder.final_layer_norm.bias", "decoder.final_layer_norm.bias"),
    absent=("model.decoder.project_out.", "decoder.project_out."),
    epsilon_default="1e-5",
    must_be={
        "do_layer_norm_before": (True, None),
        "_remove_final_layer_norm": (False, None),
        "layer_norm_elementwise_affine": (True, None),
    },
)
_OPT_POST_NORM = replace(
    _OPT,
    gain=tuple(name.replace("final", "layers.{last}.final") for name in _OPT.gain),
    shift=tuple(name.replace("final", "layers.{last}.final") for name in _OPT.shift),
    layers="num_hidden_layers",
    absent=(*_OPT.absent, "model.decoder.final_layer_norm.", "decoder.final_layer_norm."),
    must_be={
        "do_layer_norm_before": (False,),
        "_remove_final_layer_norm": (False, True, None),
        "layer_norm_elementwise_affine": (True, None),
    },
    notes=(_POST_NORM,),
)
_OPT_NO_NORM = replace(
    _OPT,
    norm="none",
    gain=(),
    shift=(),
    absent=("model.decoder.final_layer_norm.", "decoder.final_layer_norm."),
    width=("word_embed_proj_dim", "hidden_size"),
    epsilon_default="",
    must_be={"do_layer_norm_before": (True, None), "_remove_final_layer_norm": (True,)},
    notes=(_NO_NORM,),
)
_OPT_POST_NORM_PROJECTED = replace(
    _OPT_NO_NORM, must_be=_OPT_POST_NORM.must_be | {"layer_norm_elementwise_affine": (True, False, None)}
)

# A model_type with several entries is described by the first one whose `must_be` holds.
ARCHITECTURES: dict[str, tuple[Architecture, ...]] = {
    "gpt2": (_gpt2_like("GPT2LMHeadModel", classes=("GPT2LMHeadModel", "GPT2DoubleHeadsModel")),),
    "gpt_bigcode": (_gpt2_like("GPTBigCodeForCausalLM"),),
    "gpt_neo": (_gpt2_like("GPTNeoForCausalLM", width=("hidden_size",)),),
    "gptj": (_gpt2_like("GPTJForCausalLM", bias=("lm_head.bias",), tied_default=False),),
    "codegen": (_gpt2_like("CodeGenForCausalLM", bias=("lm_head.bias",), tied_default=False),),
    "gpt_neox": (
        Architecture(
            classes=("GPTNeoXForCausalLM",),
            norm="layernorm",
            embedding=("gpt_neox.embed_in.weight", "embed_in.weight"),
            head=("embed_out.weight", "lm_head.weight"),
            gain=("gpt_neox.final_layer_norm.weight", "final_layer_norm.weight"),
            shift=("gpt_neox.final_layer_norm.bias", "final_layer_norm.bias"),
            tied_default=False,
            epsilon_keys=("layer_norm_eps",),
            epsilon_default="1e-5",
        ),
    ),
    "opt": (_OPT, _OPT_POST_NORM, _OPT_NO_NORM, _OPT_POST_NORM_PROJECTED),
    "bloom": (
        _gpt2_like(
            "BloomForCausalLM",
            embedding=("transformer.word_embeddings.weight", "word_embeddings.weight"),
            width=("n_embed", "hidden_size"),
        ),
    ),
    "falcon": (
        _gpt2_like(
            "FalconForCausalLM",
            embedding=("transformer.word_embeddings.weight", "word_embeddings.weight"),
            width=("n_embed", "hidden_size"),
            own_code="modeling_falcon",
        ),
    ),
    "mpt": (
        _gpt2_like(
            "MptForCausalLM",
            classes=("MptForCausalLM", "MPTForCausalLM"),
            gain=("transformer.norm_f.weight", "norm_f.weight"),
            shift=(),
            width=("d_model", "hidden_size"),
            must_be={"norm_type": ("layernorm", "low_precision_layernorm", None)},
            own_code="modeling_mpt",
        ),
    ),
    "llama": (_llama_like("LlamaForCausalLM"),),
    "llama4_text": (_LLAMA4,),
    "llama4": (
        _wrapped(_LLAMA4, "Llama4ForConditionalGeneration", must_be={"model_type": ("llama4_text", None)}),
    ),
    "mistral": (_llama_like("MistralForCausalLM"),),
    "ministral": (_llama_like("MinistralForCausalLM"),),
    "ministral3": (_llama_like("Ministral3ForCausalLM", epsilon_default="1e-5"),),
    "mistral3": (
        _wrapped(
            _llama_like(""), "Mistral3ForConditionalGeneration", must_be={"model_type": ("mistral", None)}
        ),
        _wrapped(
            _llama_like("", epsilon_default="1e-5"),
            "Mistral3ForConditionalGeneration",
            must_be={"model_type": ("ministral3",)},
        ),
    ),
    "mixtral": (_llama_like("MixtralForCausalLM", epsilon_default="1e-5"),),
    "qwen2": (_llama_like("Qwen2ForCausalLM"),),
    "qwen2_moe": (_llama_like("Qwen2MoeForCausalLM"),),
    "qwen3": (_llama_like("Qwen3ForCausalLM"),),
    "qwen3_moe": (_llama_like("Qwen3MoeForCausalLM"),),
    "gemma": (_GEMMA,),
    "gemma2": (replace(_GEMMA, classes=("Gemma2ForCausalLM",), after=_SOFTCAP),),
    "gemma3_text": (_GEMMA3,),
    "gemma3": (
        _wrapped(
            replace(_GEMMA3, after=""),
            "Gemma3ForConditionalGeneration",
            must_be={"model_type": ("gemma3_text", None)},
        ),
    ),
    "phi": (
        _llama_like(
            "PhiForCausalLM",
            norm="layernorm",
            gain=("model.final_layernorm.weight",),
            shift=("model.final_layernorm.bias",),
            bias=("lm_head.bias",),
            epsilon_keys=("layer_norm_eps",),
            epsilon_default="1e-5",
        ),
    ),
    "phi3": (_llama_like("Phi3ForCausalLM", epsilon_default="1e-5", own_code="modeling_phi3"),),
    "stablelm": (
        _llama_like(
            "StableLmForCausalLM",
            norm="layernorm",
            shift=("model.norm.bias", "norm.bias"),
            epsilon_keys=("layer_norm_eps",),
            epsilon_default="1e-5",
        ),
    ),
    "starcoder2": (
        _llama_like(
            "Starcoder2ForCausalLM",
            norm="layernorm",
            shift=("model.norm.bias", "norm.bias"),
            tied_default=True,
            epsilon_keys=("norm_epsilon",),
            epsilon_default="1e-5",
            must_be={"norm_type": ("layer_norm", None)},
        ),
    ),
    "olmo": (
        _llama_like(
            "OlmoForCausalLM",
            norm="layernorm",
            gain=(),
            absent=("model.norm.", "norm."),
            epsilon_keys=(),
            epsilon_default="1e-5",
        ),
    ),
    "olmo2": (_OLMO2,),
    "olmo3": (replace(_OLMO2, classes=("Olmo3ForCausalLM",)),),
    "cohere": (_COHERE,),
    "cohere2": (replace(_COHERE, classes=("Cohere2ForCausalLM",)),),
    "granite": (_llama_like("GraniteForCausalLM", after="divided by logits_scaling"),),
    "mamba": (
        Architecture(
            classes=("MambaForCausalLM",),
            norm="rmsnorm",
            embedding=("backbone.embeddings.weight", "embeddings.weight"),
            head=("lm_head.weight",),
            gain=("backbone.norm_f.weight", "norm_f.weight"),
            epsilon_keys=("layer_norm_epsilon",),
            epsilon_default="1e-5",
        ),
    ),
    "t5": (_t5_like("T5ForConditionalGeneration", "T5WithLMHeadModel"),),
    "mt5": (_t5_like("MT5ForConditionalGeneration"),),
    "bart": (
        _bart_like(
            "BartForConditionalGeneration",
            "BartModel",
            embedding=(
                "model.shared.weight",
                "shared.weight",
                "model.decoder.embed_tokens.weight",
                "decoder.embed_tokens.weight",
            ),
        ),
    ),
    "marian": (
        _bart_like(
            "MarianMTModel",
            embedding=("model.decoder.embed_tokens.weight", "model.shared.weight"),
            rows=("decoder_vocab_size", "vocab_size"),
        ),
    ),
    "whisper": (
        Architecture(
            classes=("WhisperForConditionalGeneration", "WhisperForCausalLM"),
            norm="layernorm",
            embedding=("model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
            head=("proj_out.weight",),
            gain=("model.decoder.layer_norm.weight", "decoder.layer_norm.weight"),
            shift=("model.decoder.layer_norm.bias", "decoder.layer_norm.bias"),
            width=("d_model",),
            epsilon_default="1e-5",
            notes=(_PROCESSORS,),
        ),
    ),
    "bert": (
        Architecture(
            classes=("BertForMaskedLM", "BertForPreTraining", "BertLMHeadModel"),
            norm="layernorm",
            embedding=("bert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
            head=("cls.predictions.decoder.weight",),
            gain=("cls.predictions.transform.LayerNorm.weight", "cls.predictions.transform.LayerNorm.gamma"),
            shift=("cls.predictions.transform.LayerNorm.bias", "cls.predictions.transform.LayerNorm.beta"),
            bias=("cls.predictions.bias", "cls.predictions.decoder.bias"),
            untied_bias="cls.predictions.decoder.bias",
            epsilon_keys=("layer_norm_eps",),
            epsilon_default="1e-12",
            notes=(_RESTRICTED,),
        ),
    ),
    "roberta": (_roberta_like("RobertaForMaskedLM", "RobertaForCausalLM"),),
    "xlm-roberta": (_roberta_like("XLMRobertaForMaskedLM", "XLMRobertaForCausalLM"),),
    "camembert": (_roberta_like("CamembertForMaskedLM", "CamembertForCausalLM"),),
    "distilbert": (
        Architecture(
            classes=("DistilBertForMaskedLM",),
            norm="layernorm",
            embedding=("distilbert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
            head=("vocab_projector.weight",),
            gain=("vocab_layer_norm.weight",),
            shift=("vocab_layer_norm.bias",),
            bias=("vocab_projector.bias",),
            width=("dim",),
            epsilon_default="1e-12",
            notes=(_RESTRICTED,),
        ),
    ),
    "albert": (
        Architecture(
            classes=("AlbertForMaskedLM", "AlbertForPreTraining"),
            norm="layernorm",
            embedding=("albert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
            head=("predictions.decoder.weight",),
            gain=("predictions.LayerNorm.weight",),
            shift=("predictions.LayerNorm.bias",),
            bias=("predictions.bias", "predictions.decoder.bias"),
            untied_bias="predictions.decoder.bias",
            width=("embedding_size",),
            epsilon_keys=("layer_norm_eps",),
            epsilon_default="1e-12",
            notes=(_RESTRICTED, _ALBERT_EPSILON),
        ),
    ),
    "electra": (
        Architecture(
            classes=("ElectraForMaskedLM", "ElectraForCausalLM"),
            norm="layernorm",
            embedding=("electra.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
            head=("generator_lm_head.weight",),
            gain=("generator_predictions.LayerNorm.weight",),
            shift=("generator_predictions.LayerNorm.bias",),
            bias=("generator_lm_head.bias",),
            width=("embedding_size",),
            epsilon_keys=("layer_norm_eps",),
            epsilon_default="1e-12",
            notes=(_RESTRICTED,),
        ),
    ),
}

# Config keys that act on the logits after the readout. Positive: no argmax changes, and a note says so where
# the entry's `after` has the key.
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
    "_remove_final_layer_norm": (False, None),
    "lm_head_bias": (False, None),
    "use_lm_head_bias": (False, None),
    "apply_final_norm": (True, None),
}

# The config key of the file, or the index of shards, that loaders read instead of the usual one.
WEIGHTS = "transformers_weights"

# Config keys of a checkpoint whose stored numbers are not the weights the model computes with.
QUANTISED = ("quantization_config", "compression_config")

# Tensors that add to the logits wherever they occur: an entry names them as its bias, or they are refused.
LOGIT_TENSORS = ("final_logits_bias", "lm_head.bias")
