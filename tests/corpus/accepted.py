"""The certificates and bundles of the corpus that hold, each showing one form of evidence."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from corpus.weights import MODELS, Model, Stored, files_of

Json = dict[str, Any]
_BY_HAND = {"layernorm": "0.00001", "rmsnorm": "0.00001", "none": "0"}


@dataclass(frozen=True)
class Case:
    """A file: its contents, the folder it is about (`-` for none), and what it shows."""

    data: Json
    model: str
    why: str


ACCEPTED: dict[str, Case] = {}


def frac(text: str | Fraction) -> str:
    """A *fraction* from decimal text."""
    value = Fraction(text)
    return f"{value.numerator:x}/{value.denominator:x}"


def identity(stored: Stored) -> Json:
    """A tensor as a statement names it."""
    return {
        "name": stored.name,
        "dtype": stored.dtype,
        "shape": list(stored.shape),
        "sha256": stored.sha256,
        "merkle": stored.merkle,
    }


def ids(folder: str, role: str = "unembedding") -> Json:
    """A tensor of a model as a statement names it."""
    return identity(MODELS[folder].tensors[role])


def state(p: str, k: int = 0) -> Json:
    return {"k": k, "p": p}


def residual(dtype: str, p: str, k: int = 0) -> Json:
    return {"dtype": dtype, "k": k, "p": p}


def speakable(
    margin: str | Fraction,
    z: Json | None,
    r: Json | None = None,
    ceiling: Json | None = None,
    at_most: str = "",
) -> Json:
    return {
        "verdict": "speakable",
        "margin": frac(margin),
        "state": z,
        "residual": r,
        "ceiling": ceiling,
        "at_most": frac(at_most) if at_most else None,
    }


def by(rows: str, values: str | None) -> Json:
    """Multipliers."""
    return {"rows": rows, "values": values}


def unspeakable(kind: str, gap: str, rows: str, values: str | None, tie: Json | None = None) -> Json:
    return {
        "verdict": "unspeakable",
        "gap": frac(gap),
        "kind": kind,
        "multipliers": by(rows, values),
        "tie": tie,
    }


def certificate(m: Model, token: int, domain: str, claim: Json, **fields: Any) -> Json:
    """A certificate about a model's folder; `fields` go into the statement."""
    V = next(iter(m.tensors.values())).shape[0]
    text = m.pieces[token] if m.pieces is not None and token < len(m.pieces) else None
    known = {name: data for name, data in files_of(m).items() if name != "model.safetensors"}
    statement = {
        "model": m.name,
        "revision": None,
        "tensors": {role: identity(x) for role, x in m.tensors.items()},
        "norm": m.norm,
        "gain_offset": 0,
        "epsilon": m.epsilon,
        "epsilon_source": m.source,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in known.items()},
        "token": token,
        "text": text,
        "domain": domain,
        "competitors": V,
        "competitor_rule": "all",
    }
    return {
        "format": "verify-certificate",
        "version": 1,
        "statement": statement | fields,
        "claim": claim,
        "provenance": {"tool": "corpus"},
    }


def case(name: str, folder: str, token: int, domain: str, claim: Json, why: str, **fields: Any) -> None:
    ACCEPTED[name] = Case(certificate(MODELS[folder], token, domain, claim, **fields), folder, why)


def hand(
    name: str, roles: str, norm: str, token: int, domain: str, claim: Json, why: str, **fields: Any
) -> None:
    """A statement described by hand; `roles` such as "unembedding=flat bias"."""
    m = MODELS["hand"]
    tensors = {
        role: identity(m.tensors[of or role]) for role, _, of in (x.partition("=") for x in roles.split())
    }
    epsilon = fields.pop("epsilon", _BY_HAND[norm])
    source = "" if norm == "none" else f"by hand: {epsilon}"
    about = {"tensors": tensors, "norm": norm, "epsilon": epsilon, "epsilon_source": source, **fields}
    about.setdefault("competitors", tensors["unembedding"]["shape"][0])
    case(name, "hand", token, domain, claim, why, **about)


def part(stored: Stored, rows: list[int] | None) -> Json:
    """The rows of one tensor with their proof; None for all."""
    if rows is None:
        return {"rows": None, "bytes": stored.data.hex(), "proof": None}
    data = b"".join(map(stored.row, rows)).hex()
    return {"rows": " ".join(map(str, rows)), "bytes": data, "proof": " ".join(proof(stored, rows)) or None}


def proof(stored: Stored, rows: list[int]) -> list[str]:
    """What the rows do not give of the tree, left to right."""
    found: list[str] = []

    def walk(lo: int, hi: int) -> None:
        if not any(lo <= j < hi for j in rows):
            found.append(stored.tree(lo, hi).hex())
        elif hi - lo > 1:
            s = 1 << ((hi - lo - 1).bit_length() - 1)
            walk(lo, lo + s)
            walk(lo + s, hi)

    walk(0, stored.shape[0])
    return found


def bundle_of(data: Json, tensors: dict[str, Stored]) -> Json:
    """The bundle of a certificate."""
    claim = data["claim"]
    support = claim["multipliers"]["rows"] if "multipliers" in claim else ""
    rows = sorted({data["statement"]["token"], *map(int, support.split())})
    parts = {
        role: part(x, None if role in ("gain", "shift") else rows)
        for role, x in tensors.items()
        if role in data["statement"]["tensors"]
    }
    return {"format": "verify-bundle", "version": 1, "certificate": copy.deepcopy(data), "tensors": parts}


def bundle(name: str, of: str, why: str) -> None:
    base = ACCEPTED[of]
    tensors = MODELS[base.model].tensors
    if base.model == "hand":
        named = base.data["statement"]["tensors"]
        tensors = {role: tensors[t["name"]] for role, t in named.items()}
    ACCEPTED[name] = Case(bundle_of(base.data, tensors), "-", why)


_EDGE = "f" * 4096
# fmt: off
# ruff: noqa: E501
# ---- speakable: a state in each domain ----
W = state("1 2", 1)
case("witness_readout_rmsnorm", "square", 0, "readout", speakable("2", W), "a state of the ball, gain, no bias")
case("witness_free_rmsnorm", "square", 0, "free", speakable("2", W), "the state is h: the gain is not applied")
case("witness_direction_rmsnorm", "square", 0, "direction", speakable("10", state("4 8")), "any state of the cone, however large")
case("witness_box_corner", "square", 0, "box:1", speakable("4", state("1 1")), "|p_i| = B is inside; the same point is no state of the ball")
case("witness_box_fraction", "square", 0, "box:0.5", speakable("2", state("1 1", 1)), "a box with a decimal bound")
case("witness_just_inside_the_ball", "square", 0, "readout", speakable("3", state("ffffffff ffffffff", 32)), "|z|^2 is below d by less than 2^-29")
case("witness_smaller_margin_than_found", "square", 0, "readout", speakable("1/1000", W), "a margin is a lower bound")
case("witness_largest_k", "square", 0, "readout", speakable(Fraction(4, 1 << 16384), state("1 2", 16384)), "k = 2^14, a state of about 2^-16383")
case("witness_longest_entry", "square", 0, "free", speakable("1", state(f"{_EDGE} {_EDGE}", 16384)), "entries of 2^12 digits, the most allowed")
case("witness_readout_layernorm", "tilted", 1, "readout", speakable("6", state("1 0 -1 0", 2)), "z = (d*p - sum)/2^k, and the shift counts")
case("witness_free_layernorm", "tilted", 1, "free", speakable("2", state("1 0 -1 0")), "neither gain nor shift nor projection")
case("witness_direction_layernorm", "tilted", 1, "direction", speakable("8", state("1 0 -1 0")), "gain without shift")
case("witness_box_layernorm", "tilted", 1, "box:1", speakable("7", state("1 0 -1 1")), "z = P(p/2^k), the bound is on p")
case("witness_readout_bias", "biased", 0, "readout", speakable("3/8", state("1 0", 1)), "LayerNorm with shift and logit bias")
case("witness_free_bias", "biased", 1, "free", speakable("3/4", state("0 1")), "in `free` the bias counts, the shift does not")
case("witness_direction_bias_ignored", "biased", 5, "direction", speakable("2", state("-1 0")), "in `direction` no bias counts")
case("witness_box_zero_state", "biased", 1, "box:1", speakable("257/1024", state("0 0")), "the zero state is a witness where the bias leads")
hand("witness_readout_norm_none", "unembedding bias", "none", 0, "readout", speakable("87/2", state("1 7")), "without norm every vector is a state")
hand("witness_box_norm_none", "unembedding bias", "none", 0, "box:7", speakable("87/2", state("1 7")), "a box without norm")
hand("witness_rmsnorm_all_roles", "unembedding gain shift bias", "rmsnorm", 0, "readout", speakable("33/4", state("1 1", 1)), "four tensors of four dtypes, gain offset 1", gain_offset=1)
hand("witness_one_dimension", "unembedding=thin", "rmsnorm", 1, "readout", speakable("1/2", state("1", 1)), "d = 1, V = 2")
case("witness_default_epsilon", "heard", 0, "readout", speakable("1/2", state("1 0", 1)), "whisper's config.json names no epsilon: the default is stated")
hand("witness_rmsnorm_constant_state", "unembedding=flat", "rmsnorm", 3, "readout", speakable("5", state("1 1 1", 1)), "a constant state is one to an RMSNorm")
case("witness_free_constant_state", "heard", 3, "free", speakable("5", state("1 1")), "a constant state in `free`, after a LayerNorm")
# ---- speakable: residual vectors and ceilings ----
R = residual("F32", "1 2")
BOTH = by("2 1", "2 1")
case("residual_alone", "square", 0, "readout", speakable("5/2", None, R), "epsilon > 0: margins compared as squares")
case("residual_alone_epsilon_zero_exact_margin", "round", 0, "readout", speakable("5", None, residual("F16", "1 7")), "on the sphere; sqrt(s) = 5 is rational and the margin is exact")
case("residual_constant_led_by_bias", "biased", 1, "readout", speakable("257/1024", None, residual("F16", "1 1")), "a constant vector is fine with epsilon > 0: z = 0")
case("residual_layernorm_epsilon_zero", "ring", 0, "readout", speakable("4", None, residual("F32", "1 0")), "LayerNorm on the sphere, exact margin")
hand("residual_norm_none", "unembedding bias", "none", 0, "readout", speakable("87/2", None, residual("BF16", "1 7")), "without norm s = 1")
case("residual_smallest_subnormal", "square", 0, "readout", speakable("1/1000000", None, residual("F16", "1 2", 24)), "2^-24 is the smallest positive F16")
case("state_residual_ceiling", "square", 0, "readout", speakable("2", W, R, BOTH, "16/3"), "all parts; the ceiling is exact: d|Pu|^2 = R^2 = 256")
case("state_ceiling_bias", "biased", 0, "readout", speakable("3/8", state("1 0", 1), residual("F16", "1 0"), by("3", "1"), "9/8"), "a ceiling by one row, LayerNorm with bias")
case("residual_ceiling_sphere", "round", 0, "readout", speakable("5", None, residual("F16", "1 7"), by("1 2", "1 1"), "10"), "a ceiling over the ball holds on the sphere")
case("state_ceiling_box", "square", 0, "box:1", speakable("4", state("1 1"), None, by("2", "1"), "4"), "in the box the ceiling meets the margin")
case("ceiling_support_only", "biased", 1, "readout", speakable("257/1024", state("0 0"), None, by("0 5", None), "27/20"), "a ceiling whose multipliers are solved for")
# ---- unspeakable: cancelling multipliers ----
ALL = ("0 1 2 3", "1 1 1 1")
for D in ("readout", "free", "direction", "box:3"):
    case(f"never_rank_{D.replace(':', '_')}", "square", 4, D, unspeakable("never", "0", *ALL), "the support spans: only z = 0 ties")
case("never_rank_layernorm", "heard", 3, "readout", unspeakable("never", "0", "0 1 2", "1 1 1"), "after a LayerNorm rank d - 1 suffices")
case("never_rank_sphere", "round", 4, "readout", unspeakable("never", "0", *ALL), "rank on the sphere")
case("never_rank_direction_bias_ignored", "biased", 1, "direction", unspeakable("never", "0", "0 5", "2 3"), "speakable in `readout`, not without its bias")
case("rows_in_any_order_with_a_common_factor", "square", 4, "free", unspeakable("never", "0", "3 0 2 1", " ".join(["1" + "0" * 25] * 4)), "order and factor are free")
case("never_cancelling_with_gap", "biased", 2, "readout", unspeakable("never", "3/2", "0 1", "1 2"), "Pu = 0 and v < 0, the gap is exact")
case("never_cancelling_smallest_gap", "biased", 4, "readout", unspeakable("never", "1/1024", "0 1", "1 2"), "a gap of 2^-10")
case("never_free_bias", "biased", 2, "free", unspeakable("never", "6143/4096", "0 1 4", "1 2 1"), "equality with bias in `free`")
hand("never_norm_none", "unembedding bias", "none", 5, "readout", unspeakable("never", "1/4", "1 2 3 4", "1 1 1 1"), "without norm multipliers must cancel")
case("tie_only_edge", "square", 5, "readout", unspeakable("tie-only", "0", "0 1", "1 1", state("1 0")), "the midpoint of an edge")
case("tie_only_direction", "square", 5, "direction", unspeakable("tie-only", "0", "0 1", "1 1", state("1 0")), "the same on the cone")
case("tie_only_bias", "biased", 3, "readout", unspeakable("tie-only", "0", "0 1", "1 1", state("1 0", 2)), "a tie of three tokens at one state, with bias")
case("tie_only_box", "biased", 3, "box:1", unspeakable("tie-only", "0", "0 1", "1 1", state("1 0", 1)), "the tie state of a box is P(p/2^k)")
case("tie_only_free_at_constant_state", "tilted", 7, "free", unspeakable("tie-only", "0", "4 5", "1 1", state("-1 -1 -1 -1")), "in `free` a constant vector is not zero")
case("tie_only_equal_rows", "twins", 0, "readout", unspeakable("tie-only", "0", "1", "1", state("1 0")), "equal rows, one of them with -0")
case("unsettled_equal_only_after_projection", "heard", 3, "readout", unspeakable("unsettled", "0", "2", "1"), "PD = 0 though D is not")
case("unsettled_too_few_rows", "square", 4, "readout", unspeakable("unsettled", "0", "0 3", "1 1"), "the support does not span")
case("unsettled_on_the_sphere", "round", 5, "readout", unspeakable("unsettled", "0", "0 1", "1 1"), "no tie state is accepted on the sphere")
case("unsettled_rank_drops_modulo_the_prime", "prime", 3, "readout", unspeakable("unsettled", "0", "0 1 2", "1 1 1"), "rank 2 over Q, 1 modulo 2^63 - 25: not `never`")
hand("unsettled_constant_difference", "unembedding=flat", "layernorm", 4, "readout", unspeakable("unsettled", "0", "5", "1"), "d = 3, D constant: PD = 0")
# ---- unspeakable: ball and box ----
case("ball_with_gap", "tilted", 7, "readout", unspeakable("never", "2", "1", "1"), "one row dominates, by the shift")
case("ball_gap_zero_on_the_cone_layernorm", "tilted", 7, "readout", unspeakable("never", "0", "0", "1"), "d|Pu|^2 = v^2 = 16 with Pu not 0: reached on the boundary only")
hand("ball_gap_zero_on_the_cone_rmsnorm", "unembedding bias", "rmsnorm", 5, "readout", unspeakable("never", "0", "0", "1"), "2*(1 + 49) = 10^2")
case("ball_exact_gap", "biased", 2, "readout", unspeakable("never", "3/4", "1", "1"), "d|Pu|^2 = R^2 with a gap")
hand("ball_all_roles", "unembedding gain shift bias", "rmsnorm", 5, "readout", unspeakable("never", "3", "0", "1"), "gain, shift and bias of different dtypes")
hand("ball_gain_offset", "unembedding gain shift bias", "rmsnorm", 5, "readout", unspeakable("never", "5/2", "0", "1"), "the stored gain is gain - 1", gain_offset=1)
case("sphere_never", "ring", 4, "readout", unspeakable("never", "4", "0", "1"), "epsilon = 0 and d|Pu|^2 < v^2")
case("box_without_epsilon_unsettled_at_equality", "ring", 4, "box:2", unspeakable("unsettled", "0", "0", "1"), "epsilon = 0 means a sphere in `readout` only; in the box d|Pu|^2 < v^2 excludes no tie")
case("sphere_unsettled_at_equality", "ring", 3, "readout", unspeakable("unsettled", "0", "2", "1"), "epsilon = 0 and d|Pu|^2 = v^2")
case("box_exact_gap", "tilted", 7, "box:1", unspeakable("never", "4", "1", "1"), "B|Pu|_1 = R with Pu not 0")
case("box_unsettled_at_equality", "tilted", 7, "box:2", unspeakable("unsettled", "0", "1", "1"), "the bound 0 is reached at a corner")
hand("box_decimal_bound", "unembedding bias", "rmsnorm", 5, "box:1.25", unspeakable("unsettled", "0", "0", "1"), "1.25 * 8 = 10")
hand("box_norm_none", "unembedding bias", "none", 5, "box:0.000000000000000001", unspeakable("never", "9", "0", "1"), "the smallest box that can be written")
# ---- support-only ----
case("support_only", "square", 6, "readout", unspeakable("never", "0", "0 1 2", None), "the reader finds 2, 3, 3")
case("support_only_one_equal_row", "twins", 0, "readout", unspeakable("tie-only", "0", "1", None, state("1 0")), "a single row that is equal")
case("support_only_bias", "biased", 2, "readout", unspeakable("never", "3/2", "0 1", None), "found with v < 0")
hand("support_only_needs_e", "unembedding bias", "none", 5, "readout", unspeakable("unsettled", "0", "1 2 3 4", None), "two solutions of Pu = 0; with v = 0 one is left: 1, 2, 2, 1")
# ---- statements ----
case("tokenizer_rule", "padded", 0, "readout", speakable("1", state("1 0")), "a padded row would win, but is no competitor", competitors=6, competitor_rule="tokenizer")
case("token_is_a_padded_row", "padded", 6, "readout", speakable("1", state("1 0")), "the token itself may lie beyond the tokenizer; its text is null", competitors=6, competitor_rule="tokenizer")
case("text_left_out_beside_a_tokenizer", "padded", 0, "readout", speakable("1", state("1 0")), "vocab.json has a text for this id; the statement says nothing of it", competitors=6, competitor_rule="tokenizer", text=None)
case("tokenizer_rule_unspeakable", "padded", 3, "readout", unspeakable("never", "0", "0 1 2", "2 1 1"), "text outside 16 bits: a pair of escapes", competitors=6, competitor_rule="tokenizer")
case("padded_row_blocks_under_all", "padded", 0, "readout", unspeakable("never", "0", "1 2 6", "1 1 4"), "the same token is unspeakable among all rows")
case("text_with_accents", "padded", 1, "readout", speakable("1/4", state("-8 1", 3)), "text outside ASCII")
case("text_with_quotes_and_slashes", "padded", 4, "readout", speakable("2", state("0 1")), "the slash is not escaped")
case("text_with_line_break", "padded", 2, "readout", speakable("1/4", state("-8 -1", 3)), "a control character")
case("text_delete_character", "padded", 5, "readout", unspeakable("never", "0", "0 1 2", "2 3 3"), "U+007F is ASCII and not escaped")
case("text_lone_surrogate", "square", 4, "readout", unspeakable("never", "0", *ALL), "no tokenizer is at hand, so any text is a hypothesis", text="\ud83d")
case("names_are_not_compared", "square", 4, "readout", unspeakable("never", "0", *ALL), "model, revision, source of epsilon and other files are hypotheses or notes", model="caf\u00e9 \u0000 {[,", revision="main", epsilon_source="a guess", files={"\u00e9": "0" * 64})
case("tokenizer_rule_without_a_tokenizer", "square", 6, "readout", speakable("3/2", state("-1 0")), "two competitors by hypothesis: no tokenizer is at hand", competitors=2, competitor_rule="tokenizer", files={})
case("names_of_tensors_are_not_compared", "square", 4, "readout", unspeakable("never", "0", *ALL), "tensors are known by their role and bytes", tensors={"unembedding": ids("square") | {"name": "model.norm.weight"}, "gain": ids("square", "gain") | {"name": "lm_head.weight"}})
case("by_hand_where_there_is_a_config", "square", 4, "readout", unspeakable("never", "0", *ALL), "the statement agrees with config.json, whatever it says of the source", epsilon_source="by hand: 1e-5")
case("nan_in_a_row_not_needed", "nan", 4, "readout", unspeakable("never", "0", *ALL), "multipliers touch their own rows only")
case("infinity_in_a_row_not_needed", "infinite", 4, "readout", unspeakable("never", "0", *ALL), "multipliers touch their own rows only")
case("longest_string", "square", 4, "readout", unspeakable("never", "0", *ALL), "a string of 65,536 characters")
ACCEPTED["longest_string"].data["provenance"]["note"] = "n" * 65536
ACCEPTED["never_rank_free"].data["provenance"] = {}
# ---- bundles ----
case("dozen_equality", "dozen", 5, "readout", unspeakable("never", "3", "0 1 2", "1 1 1"), "equality form, 4 of 12 rows")
case("dozen_ball", "dozen", 5, "readout", unspeakable("never", "2", "1", "1"), "ball form, 2 of 12 rows")
case("dozen_box", "dozen", 5, "box:1", unspeakable("never", "7/3", "1", "1"), "box form, exact gap")
case("dozen_support", "dozen", 5, "readout", unspeakable("unsettled", "3", "2 0 1", None), "support-only, rows not sorted")
case("dozen_last", "dozen", 11, "readout", unspeakable("never", "2", "0", "1"), "the last row of an unbalanced tree against the first")
case("dozen_middle", "dozen", 5, "readout", unspeakable("never", "3", "6", "1"), "two rows in the middle")
case("twins_unsettled", "twins", 0, "free", unspeakable("unsettled", "0", "1", "1"), "a tie-only claim as a bundle must lower it")
for NAME, OF, WHY in (
    ("square", "never_rank_readout", "5 of 7 rows; no bias; the gain is whole"),
    ("equality", "dozen_equality", "unembedding and bias, each with a pruned proof"),
    ("ball", "dozen_ball", "ball form with bias, LayerNorm"),
    ("box", "dozen_box", "box form"),
    ("support_only", "dozen_support", "the multipliers are solved for from the rows in the bundle"),
    ("last_row", "dozen_last", "a proof with parts of every level of the tree"),
    ("middle_rows", "dozen_middle", "closed parts left and right of single rows"),
    ("all_rows", "never_rank_layernorm", "nothing is closed: the proof is null"),
    ("tie_lowered", "twins_unsettled", "F64, kind lowered to unsettled"),
    ("sphere", "sphere_never", "epsilon 0"),
    ("free_bias", "never_free_bias", "domain free"),
    ("direction", "never_rank_direction_bias_ignored", "domain direction"),
    ("norm_none", "never_norm_none", "no norm, no gain, described by hand"),
    ("ball_on_the_cone", "ball_gap_zero_on_the_cone_rmsnorm", "gap 0 exactly on the cone"),
    ("gain_offset", "ball_gain_offset", "gain offset 1, four dtypes"),
    ("tokenizer_rule", "tokenizer_rule_unspeakable", "the number of competitors is a hypothesis"),
):
    bundle(f"bundle_{NAME}", OF, WHY)
OFFSET = copy.deepcopy(ACCEPTED["bundle_norm_none"].data)
OFFSET["certificate"]["statement"]["gain_offset"] = 1
ACCEPTED["bundle_gain_offset_without_gain"] = Case(OFFSET, "-", "there is no gain that the offset is added to")
# fmt: on
