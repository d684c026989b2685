"""Well-formed certificates and bundles that are false or unproved: an accepted one with little changed.

`forge(name, base, step, why, edits)`: `step` is where judge.py must stop, so that each fails for its own reason.
Paths in `edits` are keys separated by `/`; from `statement` on they are found in a bundle's certificate too.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from fractions import Fraction

from corpus.accepted import (
    ACCEPTED,
    Case,
    Json,
    bundle_of,
    by,
    certificate,
    frac,
    ids,
    part,
    proof,
    residual,
    speakable,
    state,
    unspeakable,
)
from corpus.weights import HOSTILE, MODELS

DROP = object()


@dataclass(frozen=True)
class Forgery:
    """A case and the step that must refuse it."""

    case: Case
    step: str


REJECTED: dict[str, Forgery] = {}


def edited(data: Json, edits: Json) -> Json:
    """A copy with the edits made; every path must lead somewhere."""
    data = copy.deepcopy(data)
    for path, value in edits.items():
        *before, last = path.split("/")
        at = data
        if before and before[0] in ("statement", "claim") and "certificate" in data:
            at = data["certificate"]
        for key in before:
            at = at[key]
        if value is DROP:
            del at[last]
        else:
            at[last] = value
    return data


def forge(name: str, base: str, step: str, why: str, edits: Json, folder: str = "") -> None:
    if name in REJECTED:
        raise AssertionError(f"{name} is there twice")
    found = ACCEPTED[base]
    data = edited(found.data, edits)
    REJECTED[name] = Forgery(Case(data, folder or found.model, why), step)


def flipped(digest: str) -> str:
    """The same hash with its last digit changed."""
    return digest[:-1] + ("0" if digest[-1] != "0" else "1")


TINY = Fraction(1, 1 << 1000)
ROWS, VALUES, KIND, GAP, TIE = (
    "claim/multipliers/rows",
    "claim/multipliers/values",
    "claim/kind",
    "claim/gap",
    "claim/tie",
)
MARGIN, STATE, RESIDUAL, DOMAIN = "claim/margin", "claim/state", "claim/residual", "statement/domain"
U, TENSORS, TOKEN = "statement/tensors/unembedding", "statement/tensors", "statement/token"
# fmt: off
# ruff: noqa: E501
# ---- multipliers ----
N = "never_rank_readout"
forge("multiplier_negative", N, "8 values", "a multiplier is negative", {VALUES: "1 1 1 -1"})
forge("multiplier_zero", N, "8 values", "a multiplier is 0", {VALUES: "1 1 1 0"})
forge("multipliers_all_negative", N, "8 values", "all multipliers are negative: they cancel, but turn every inequality", {VALUES: "-1 -1 -1 -1"})
forge("multiplier_missing", N, "8 values", "fewer multipliers than rows", {VALUES: "1 1 1"})
forge("multiplier_too_many", N, "8 values", "more multipliers than rows", {VALUES: "1 1 1 1 1"})
forge("multiplier_off_by_one", N, "10 ball", "the weighted rows no longer cancel", {VALUES: "1 1 1 2"})
forge("multiplier_off_by_one_in_2_100", "rows_in_any_order_with_a_common_factor", "10 cancel", "one part in 2^100 too much", {VALUES: " ".join(["1" + "0" * 25] * 3 + ["1" + "0" * 24 + "1"])})
forge("own_row_alone", N, "8 range", "the token's own row, D = 0, would prove anything", {ROWS: "4", VALUES: "1"})
forge("own_row_added", N, "8 range", "the token is not its own competitor", {ROWS: "0 1 2 3 4", VALUES: "1 1 1 1 1"})
forge("row_twice", N, "8 distinct", "row 0 stands twice", {ROWS: "0 0 3 3", VALUES: "1 1 1 1"})
forge("row_is_V", N, "8 range", "row 7 of 7 rows", {ROWS: "0 1 2 7"})
forge("row_far_out", N, "8 range", "a row id of 16 digits", {ROWS: "0 1 2 9999999999999999"})
forge("row_is_2_40", N, "8 range", "a row id of 2^40", {ROWS: "0 1 2 1099511627776"})
forge("row_is_padding", "tokenizer_rule_unspeakable", "8 range", "row 6 is padding, no competitor under this rule; the rows cancel", {ROWS: "1 2 6", VALUES: "1 1 1"})
forge("row_dropped", N, "10 ball", "three of four rows do not cancel", {ROWS: "0 1 2", VALUES: "1 1 1"})
forge("row_dropped_free", "never_rank_free", "10 cancel", "the same in `free`", {ROWS: "0 1 2", VALUES: "1 1 1"})
forge("row_dropped_box", "never_rank_box_3", "10 box", "the same in the box", {ROWS: "0 1 2", VALUES: "1 1 1"})
forge("row_exchanged", "never_cancelling_with_gap", "9", "other rows, same multipliers", {ROWS: "5 1"})
# ---- hashes and tensors ----
forge("sha256_of_another_model", N, "4 sha256", "the SHA-256 of another tensor", {f"{U}/sha256": ids("twins")["sha256"]})
forge("sha256_one_digit", N, "4 sha256", "the right Merkle root with a wrong SHA-256", {f"{U}/sha256": flipped(ids("square")["sha256"])})
forge("merkle_of_another_model", N, "4 merkle", "the right SHA-256 with another tensor's Merkle root", {f"{U}/merkle": ids("twins")["merkle"]})
forge("merkle_one_digit", N, "4 merkle", "the right SHA-256 with a wrong Merkle root", {f"{U}/merkle": flipped(ids("square")["merkle"])})
forge("merkle_and_sha256_exchanged", N, "4 sha256", "each hash in the other's place", {f"{U}/merkle": ids("square")["sha256"], f"{U}/sha256": ids("square")["merkle"]})
forge("hashes_of_another_model", N, "4 sha256", "both hashes of a tensor with one value changed", {f"{U}/merkle": ids("nan")["merkle"], f"{U}/sha256": ids("nan")["sha256"]})
forge("gain_sha256_of_another_model", N, "4 sha256", "the gain of another model", {f"{TENSORS}/gain/sha256": ids("prime", "gain")["sha256"]})
forge("gain_merkle_wrong", N, "4 merkle", "the gain's Merkle root alone is wrong", {f"{TENSORS}/gain/merkle": flipped(ids("square", "gain")["merkle"])})
forge("bias_merkle_wrong", "ball_exact_gap", "4 merkle", "the bias's Merkle root alone is wrong", {f"{TENSORS}/bias/merkle": flipped(ids("biased", "bias")["merkle"])})
forge("certificate_of_another_model", N, "4 shape", "an honest certificate, shown with other weights", {}, folder="prime")
forge("certificate_of_nearly_the_same_model", N, "4 sha256", "an honest certificate, one weight of the model changed since", {}, folder="nan")
G, S = ids("tilted", "gain"), ids("tilted", "shift")
forge("gain_and_shift_swapped", "ball_with_gap", "4 sha256", "gain and shift exchanged whole", {f"{TENSORS}/gain": S, f"{TENSORS}/shift": G})
forge("gain_and_shift_hashes_swapped", "ball_with_gap", "4 sha256", "their hashes exchanged, the names kept", {f"{TENSORS}/gain": S | {"name": G["name"]}, f"{TENSORS}/shift": G | {"name": S["name"]}})
forge("bias_dropped", "never_cancelling_with_gap", "4 roles", "the model has a logit bias, the statement none", {f"{TENSORS}/bias": DROP})
forge("shift_dropped", "ball_with_gap", "4 roles", "the statement has no shift", {f"{TENSORS}/shift": DROP})
forge("gain_dropped", N, "4 roles", "the statement has no gain", {f"{TENSORS}/gain": DROP})
forge("role_added_shift", N, "4 roles", "the model has no shift", {f"{TENSORS}/shift": ids("square", "gain")})
forge("role_added_bias", "ball_with_gap", "4 roles", "the model has no logit bias", {f"{TENSORS}/bias": ids("biased", "bias") | {"shape": [8]}})
forge("bias_dropped_by_hand", "ball_gap_zero_on_the_cone_rmsnorm", "10 ball", "without the bias nothing dominates", {f"{TENSORS}/bias": DROP})
forge("gain_dropped_by_hand", "ball_all_roles", "10 ball", "without the gain the row is too long", {f"{TENSORS}/gain": DROP})
forge("shift_added_by_hand", "ball_gap_zero_on_the_cone_rmsnorm", "10 ball", "the shift takes away from the bias", {f"{TENSORS}/shift": ids("hand", "shift")})
forge("gain_offset_added_by_hand", "ball_all_roles", "10 ball", "with offset 1 the gain is another", {"statement/gain_offset": 1})
forge("gain_offset_left_out_by_hand", "witness_rmsnorm_all_roles", "13 margin", "without the offset the margin is smaller", {"statement/gain_offset": 0})
forge("dtype_changed", "ball_exact_gap", "4 shape", "BF16 of the same length reads other numbers", {f"{U}/dtype": "BF16"})
forge("dtype_of_the_gain_changed", N, "4 shape", "F64 for F32", {f"{TENSORS}/gain/dtype": "F64"})
forge("shape_transposed", N, "4 shape", "[2, 7] for [7, 2]", {f"{U}/shape": [2, 7]})
forge("shape_flat", N, "4 shape", "[14] for [7, 2]", {f"{U}/shape": [14]})
forge("shape_one_row_more", N, "4 shape", "V + 1 rows, all of them competitors", {f"{U}/shape": [8, 2], "statement/competitors": 8})
forge("shape_empty", N, "4 shape", "no rows at all", {f"{U}/shape": [0, 2]})
forge("shape_product_overflows", N, "4 shape", "2^40 x 2^40 rows and columns", {f"{U}/shape": [1 << 40, 1 << 40]})
forge("shape_of_the_gain", N, "4 shape", "[2, 1] for [2]", {f"{TENSORS}/gain/shape": [2, 1]})
forge("norm_changed", N, "4 config", "config.json says rmsnorm", {"statement/norm": "layernorm"})
forge("norm_none_claimed", N, "4 config", "config.json says rmsnorm", {"statement/norm": "none", "statement/epsilon": "0"})
forge("norm_rmsnorm_for_layernorm", "ball_with_gap", "4 config", "config.json says layernorm", {"statement/norm": "rmsnorm"})
forge("epsilon_changed", N, "4 config", "config.json says 0.00001", {"statement/epsilon": "0.00002"})
forge("epsilon_zero_claimed", N, "4 config", "config.json says 0.00001", {"statement/epsilon": "0"})
forge("epsilon_positive_claimed", "sphere_never", "4 config", "config.json says 0", {"statement/epsilon": "0.00001"})
forge("epsilon_changed_in_free", "never_rank_free", "4 config", "epsilon plays no part in `free`, and must agree all the same", {"statement/epsilon": "1"})
forge("epsilon_by_hand_against_the_config", N, "4 config", "a description by hand does not overrule config.json", {"statement/epsilon": "1", "statement/epsilon_source": "by hand: 1"})
forge("norm_by_hand_against_the_config", N, "4 config", "a description by hand does not overrule config.json", {"statement/norm": "none", "statement/epsilon": "0", "statement/epsilon_source": ""})
forge("bias_dropped_by_hand_against_the_config", "never_cancelling_with_gap", "4 roles", "a description by hand does not overrule config.json", {f"{TENSORS}/bias": DROP, "statement/epsilon_source": "by hand: 1e-12"})
forge("gain_offset_claimed", N, "4 config", "a llama stores the gain itself", {"statement/gain_offset": 1})
# ---- ball, box, cancelling ----
C = "ball_gap_zero_on_the_cone_rmsnorm"
forge("ball_v_positive", "ball_with_gap", "9", "v > 0: the token is above that row on average", {TOKEN: 0, ROWS: "7"})
forge("ball_condition_by_2_120", C, "10 ball", "d|Pu|^2 exceeds v^2 by about one part in 2^120", {ROWS: "0 1", VALUES: "1" + "0" * 30 + " 1"})
forge("gap_overstated_on_the_cone", C, "10 ball", "a gap of 2^-1000 where the best is 0", {GAP: frac(TINY)})
forge("gap_overstated_cancelling", "never_cancelling_with_gap", "9", "3/2 + 2^-1000 where the best is 3/2", {GAP: frac(Fraction(3, 2) + TINY)})
forge("gap_overstated_ball", "ball_exact_gap", "10 ball", "3/4 + 2^-1000 where the best is 3/4", {GAP: frac(Fraction(3, 4) + TINY)})
forge("gap_overstated_box", "box_exact_gap", "10 box", "4 + 2^-1000 where the best is 4", {GAP: frac(4 + TINY)})
forge("gap_overstated_sphere", "sphere_never", "10 ball", "4 + 2^-1000 where the best is 4", {GAP: frac(4 + TINY)})
forge("gap_overstated_rank", N, "9", "at z = 0 all logits are equal", {GAP: frac(TINY)})
forge("gap_overstated_equal_rows", "tie_only_equal_rows", "9", "equal rows have no gap", {GAP: frac(TINY)})
forge("gap_negative", N, "8 gap", "a negative gap says nothing, and would let multipliers pass that do not cancel", {GAP: "-1/1"})
forge("layernorm_evidence_under_rmsnorm", "unsettled_constant_difference", "10 ball", "D is constant: the projection removes it, an RMSNorm does not", {"statement/norm": "rmsnorm"})
forge("layernorm_evidence_in_free", "unsettled_equal_only_after_projection", "10 cancel", "in `free` nothing is projected", {DOMAIN: "free"})
forge("rmsnorm_state_under_layernorm", "witness_rmsnorm_constant_state", "13 margin", "a constant state is projected to 0", {"statement/norm": "layernorm"})
forge("ball_evidence_without_norm", C, "10 cancel", "without norm the ball is the whole space", {"statement/norm": "none", "statement/epsilon": "0", "statement/epsilon_source": ""})
# ---- evidence of one domain in another ----
forge("direction_as_readout", "never_rank_direction_bias_ignored", "9", "the bias makes it speakable", {DOMAIN: "readout", KIND: "unsettled"})
forge("direction_as_free", "never_rank_direction_bias_ignored", "9", "the bias makes it speakable", {DOMAIN: "free", KIND: "unsettled"})
forge("free_gap_as_direction", "never_free_bias", "9", "without bias there is no gap", {DOMAIN: "direction"})
forge("free_witness_as_direction", "witness_free_constant_state", "13 margin", "the state is constant: nothing is left of it", {DOMAIN: "direction"})
forge("free_witness_as_readout", "witness_free_constant_state", "13 margin", "the state is constant: nothing is left of it", {DOMAIN: "readout"})
forge("free_tie_as_direction", "tie_only_free_at_constant_state", "11 zero", "the tie state is zero after the projection", {DOMAIN: "direction"})
forge("readout_witness_as_free", "witness_readout_bias", "13 margin", "without the shift another token leads", {DOMAIN: "free"})
forge("readout_ball_as_free", "ball_gap_zero_on_the_cone_layernorm", "10 cancel", "the ball's evidence does not cancel", {DOMAIN: "free"})
forge("readout_ball_as_direction", "ball_with_gap", "9", "without the shift v = 0", {DOMAIN: "direction"})
forge("readout_ball_as_box", "ball_with_gap", "10 box", "box:2 has states outside the ball", {DOMAIN: "box:2"})
forge("box_1_as_readout", "box_exact_gap", "10 ball", "the ball is larger than box:1", {DOMAIN: "readout"})
forge("box_1_as_larger_box", "box_exact_gap", "10 box", "the smallest larger box that can be written near 1", {DOMAIN: "box:1.000000000000000001"})
forge("box_witness_as_smaller_box", "witness_box_corner", "13 box", "the corner is outside of a box smaller by 10^-18", {DOMAIN: "box:0.999999999999999999"})
forge("box_witness_as_readout", "witness_box_corner", "13 ball", "the corner has |z|^2 = d exactly", {DOMAIN: "readout"})
forge("direction_witness_as_readout", "witness_direction_rmsnorm", "13 ball", "a state of the cone far outside the ball", {DOMAIN: "readout"})
# ---- states ----
forge("state_on_the_boundary", "witness_readout_rmsnorm", "13 ball", "|z|^2 = d exactly", {STATE: state("1 1"), MARGIN: "1/1"})
forge("state_outside_the_ball", "witness_readout_rmsnorm", "13 ball", "|z|^2 > d", {STATE: state("3 3", 1), MARGIN: "1/1"})
forge("state_outside_the_ball_layernorm", "witness_readout_layernorm", "13 ball", "p/2^k is in the ball, d*p - sum is not", {STATE: state("1 0 -1 0", 1)})
forge("state_outside_the_box_by_2_40", "witness_box_corner", "13 box", "one coordinate is 1 + 2^-40", {STATE: state("10000000001 10000000000", 40)})
forge("state_outside_the_box_below", "witness_box_layernorm", "13 box", "one coordinate is -1 - 2^-40", {STATE: state("10000000000 0 -10000000001 10000000000", 40)})
forge("state_on_the_sphere", "residual_layernorm_epsilon_zero", "13 sphere", "with epsilon 0 no z-form is accepted", {STATE: state("1 -1", 2), RESIDUAL: None, MARGIN: "1/1000"})
forge("state_inside_the_sphere", "sphere_unsettled_at_equality", "13 sphere", "token 2 leads inside the ball and nowhere on the sphere", {TOKEN: 2, "claim": speakable("1", state("0 0"))})
forge("state_on_the_sphere_beside_a_residual", "residual_alone_epsilon_zero_exact_margin", "13 sphere", "the residual is good, the state is none", {STATE: state("1 1", 4)})
forge("state_too_long", "witness_readout_rmsnorm", "13 length", "three coordinates for d = 2", {STATE: state("1 2 0", 1)})
forge("state_too_short", "witness_readout_rmsnorm", "13 length", "one coordinate for d = 2", {STATE: state("1", 1)})
forge("state_negated", "witness_readout_rmsnorm", "13 margin", "at the opposite state others lead", {STATE: state("-1 -2", 1)})
forge("margin_overstated", "witness_readout_rmsnorm", "13 margin", "2 + 2^-1000 where the state has 2", {MARGIN: frac(2 + TINY)})
forge("margin_overstated_bias", "witness_readout_bias", "13 margin", "3/8 + 2^-1000 where the state has 3/8", {MARGIN: frac(Fraction(3, 8) + TINY)})
forge("margin_overstated_box", "witness_box_zero_state", "13 margin", "257/1024 + 2^-1000 where the state has 257/1024", {MARGIN: frac(Fraction(257, 1024) + TINY)})
forge("margin_overstated_free", "witness_free_bias", "13 margin", "3/4 + 2^-1000 where the state has 3/4", {MARGIN: frac(Fraction(3, 4) + TINY)})
forge("margin_zero", "witness_readout_rmsnorm", "12 margin", "a tie is no witness", {MARGIN: "0/1"})
forge("margin_negative", "witness_readout_rmsnorm", "12 margin", "a margin below 0", {MARGIN: "-1/1"})
forge("witness_of_another_token", "witness_readout_rmsnorm", "13 margin", "token 1 does not lead there", {TOKEN: 1})
forge("zero_state_without_bias", "witness_readout_rmsnorm", "13 margin", "at z = 0 all are equal", {STATE: state("0 0"), MARGIN: frac(TINY)})
forge("state_exact_in_floats_only", "tie_only_bias", "13 margin", "a tie: in floats a last bit could decide", {"claim": speakable(TINY, state("1 0", 2))})
# ---- residual vectors ----
A, E = "residual_alone", "residual_alone_epsilon_zero_exact_margin"
forge("residual_margin_overstated", A, "14 margin", "253/100 where the vector has 2.5298...", {MARGIN: frac("253/100")})
forge("residual_margin_overstated_exact", E, "14 margin", "5 + 2^-1000 where the vector has 5", {MARGIN: frac(5 + TINY)})
forge("residual_margin_overstated_bias", "residual_constant_led_by_bias", "14 margin", "257/1024 + 2^-1000 where the vector has 257/1024", {MARGIN: frac(Fraction(257, 1024) + TINY)})
forge("residual_not_exact", A, "14 dtype", "2049 has 12 significant bits, F16 has 11", {RESIDUAL: residual("F16", "801 1002")})
forge("residual_overflows", A, "14 dtype", "65536 is beyond F16", {RESIDUAL: residual("F16", "8000 10000")})
forge("residual_below_the_smallest", A, "14 dtype", "2^-25 is no F16", {RESIDUAL: residual("F16", "1 2", 25)})
forge("residual_not_exact_bf16", A, "14 dtype", "257 has 9 significant bits, BF16 has 8", {RESIDUAL: residual("BF16", "101 202")})
forge("residual_constant", "residual_layernorm_epsilon_zero", "14 constant", "epsilon 0 and a constant vector: the norm is undefined", {RESIDUAL: residual("F32", "1 1"), MARGIN: "1/1000"})
forge("residual_zero", E, "14 constant", "epsilon 0 and the zero vector: the norm is undefined", {RESIDUAL: residual("F16", "0 0")})
forge("residual_in_free", A, "14 domain", "a residual vector is a witness in `readout` only", {DOMAIN: "free"})
forge("residual_beside_a_state_in_direction", "witness_direction_rmsnorm", "14 domain", "the state is good, the residual is out of place", {RESIDUAL: residual("F32", "1 2")})
forge("residual_in_box", A, "14 domain", "a residual vector is a witness in `readout` only", {DOMAIN: "box:9"})
forge("residual_loses", A, "14 lead", "the opposite vector", {RESIDUAL: residual("F32", "-1 -2")})
forge("residual_ties", A, "14 lead", "an equal competitor at the vector", {TOKEN: 5, RESIDUAL: residual("F32", "1 0"), MARGIN: frac(TINY)})
forge("residual_loses_beside_a_good_state", "state_residual_ceiling", "14 lead", "the state is good, the residual is not", {RESIDUAL: residual("F32", "1 -2")})
forge("residual_loses_by_the_bias", "state_ceiling_bias", "14 lead", "near 0 the bias decides, for another token", {RESIDUAL: residual("F16", "1 0", 24)})
forge("residual_too_long", A, "14 length", "three coordinates for d = 2", {RESIDUAL: residual("F32", "1 2 0")})
forge("residual_too_short", A, "14 length", "one coordinate for d = 2", {RESIDUAL: residual("F32", "1")})
# ---- ceilings ----
B = "state_residual_ceiling"
forge("at_most_understated", B, "10 ball", "16/3 - 2^-1000 where the multipliers give 16/3", {"claim/at_most": frac(Fraction(16, 3) - TINY)})
forge("at_most_below_the_margin", B, "10 ball", "a ceiling below the margin that was shown", {"claim/at_most": "1/1"})
forge("at_most_understated_bias", "state_ceiling_bias", "10 ball", "9/8 - 2^-1000 where the row gives 9/8", {"claim/at_most": frac(Fraction(9, 8) - TINY)})
forge("at_most_understated_box", "state_ceiling_box", "10 box", "4 - 2^-1000 where the row gives 4", {"claim/at_most": frac(4 - TINY)})
forge("at_most_negative", B, "9", "the token leads, so no ceiling is negative", {"claim/at_most": "-1/1"})
forge("ceiling_by_the_own_row", B, "8 range", "the own row as a ceiling", {"claim/ceiling": by("0", "1")})
forge("ceiling_negative_multiplier", B, "8 values", "a negative multiplier", {"claim/ceiling": by("2 1", "2 -1")})
forge("ceiling_row_twice", B, "8 distinct", "a row twice", {"claim/ceiling": by("2 2 1", "1 1 1")})
forge("ceiling_on_a_cone", "witness_direction_rmsnorm", "10 cancel", "margins on a cone have no ceiling", {"claim/ceiling": by("2", "1"), "claim/at_most": "63/1"})
forge("ceiling_support_only_undetermined", B, "3 one solution", "two independent rows have no relation", {"claim/ceiling": by("2 1", None)})
# ---- ties and kinds ----
T = "tie_only_edge"
forge("tie_as_a_witness", T, "13 margin", "a tie claimed as a strict witness", {"claim": speakable(TINY, state("1 0"))})
forge("equal_rows_as_a_witness", "tie_only_equal_rows", "13 margin", "equal rows: no state separates them", {"claim": speakable(TINY, state("1 0"))})
forge("tie_state_zero", T, "11 zero", "every token ties at 0", {TIE: state("0 0")})
forge("tie_state_zero_after_projection", "tie_only_bias", "11 zero", "a constant p is the state 0", {TIE: state("1 1")})
forge("tie_state_zero_in_the_box", "tie_only_box", "11 zero", "Px = 0 for a constant x", {TIE: state("1 1")})
forge("tie_state_outside_the_ball", T, "13 ball", "|z|^2 = 4 > 2", {TIE: state("2 0")})
forge("tie_state_on_the_boundary", "tie_only_equal_rows", "13 ball", "|z|^2 = d exactly; it would tie", {TIE: state("1 1")})
forge("tie_state_outside_the_box", "tie_only_box", "13 box", "x = (2, 3/2) gives the same z, but is outside box:1", {TIE: state("4 3", 1)})
forge("tie_competitor_above_by_2_60", T, "11 above", "a competitor is above by 4 * 2^-60", {TIE: state("1000000000000000 1", 60)})
forge("tie_competitor_above_bias", "tie_only_bias", "11 above", "beside the one state of the tie", {TIE: state("1000000000000001 0", 62)})
forge("tie_state_too_long", T, "13 length", "three coordinates for d = 2", {TIE: state("1 0 0")})
forge("tie_on_the_sphere", "unsettled_on_the_sphere", "13 sphere", "no tie state is accepted with epsilon 0", {KIND: "tie-only", TIE: state("1 1", 1)})
forge("tie_for_a_never_token", N, "11 above", "at every state but 0 some row is above", {KIND: "tie-only", TIE: state("1 0")})
forge("tie_only_without_a_tie", T, "11 tie", "the tie state is missing", {TIE: None})
forge("never_with_a_tie", T, "11 tie", "never, and yet a tie state", {KIND: "never"})
forge("unsettled_with_a_tie", T, "11 tie", "unsettled, and yet a tie state", {KIND: "unsettled"})
WHY = "the token ties: "
for NAME, OF, REASON in (
    ("rank", T, "the support has rank 1 of 2"),
    ("rank_direction", "tie_only_direction", "the same on the cone"),
    ("equal_rows", "tie_only_equal_rows", "rank 0"),
    ("biases", "tie_only_bias", "v = 0, but the e_j are not all 0"),
    ("box_bias", "tie_only_box", "B|Pu| + v = 0 in the box"),
    ("free", "tie_only_free_at_constant_state", "rank 1 of 4 in `free`"),
):
    forge(f"never_for_a_tie_{NAME}", OF, "11 never", WHY + REASON, {KIND: "never", TIE: None})
forge("never_by_the_sphere_s_case_in_a_box", "box_without_epsilon_unsettled_at_equality", "11 never", "epsilon = 0 and d|Pu|^2 < v^2, but the domain is a box, and at its corner the token ties", {KIND: "never"})
forge("never_box_at_equality", "box_unsettled_at_equality", "11 never", "B|Pu| + v = 0 is reached at a corner", {KIND: "never"})
forge("never_sphere_at_equality", "sphere_unsettled_at_equality", "11 never", "d|Pu|^2 = v^2 is reached on the sphere", {KIND: "never"})
forge("never_sphere_at_equality_by_hand", C, "11 never", "the same evidence is `never` with epsilon > 0", {"statement/epsilon": "0"})
forge("never_projected_equal_rows", "unsettled_equal_only_after_projection", "11 never", "rank 0 after the projection", {KIND: "never"})
forge("never_too_few_rows", "unsettled_too_few_rows", "11 never", "rank 1 of 2", {KIND: "never"})
forge("never_rank_drops_modulo_the_prime", "unsettled_rank_drops_modulo_the_prime", "11 never", "rank 2 over Q, but 1 modulo 2^63 - 25: a refusal by the rules", {KIND: "never"})
forge("never_support_only_needs_e", "support_only_needs_e", "11 never", "the solution has v = 0 with e_j not 0", {KIND: "never"})
# ---- competitors and tokens ----
forge("competitors_fewer_under_all", "witness_readout_rmsnorm", "4 competitors", "four of seven rows called all", {"statement/competitors": 4})
forge("competitors_more_under_all", "witness_readout_rmsnorm", "4 competitors", "eight of seven rows called all", {"statement/competitors": 8})
forge("competitors_beyond_V", "tokenizer_rule_without_a_tokenizer", "5", "a tokenizer of eight ids for seven rows", {"statement/competitors": 8})
forge("competitors_zero", "tokenizer_rule_without_a_tokenizer", "5", "no competitors", {"statement/competitors": 0})
forge("competitors_none_but_the_token", "tokenizer_rule_without_a_tokenizer", "13 margin", "the only competitor is the token itself", {"statement/competitors": 1, TOKEN: 0})
forge("token_is_V", "witness_readout_rmsnorm", "5", "token 7 of 7 rows", {TOKEN: 7})
forge("token_is_2_40", N, "5", "the largest id that can be written", {TOKEN: 1 << 40})
forge("token_of_another_certificate", N, "8 range", "token 0 is in its own support", {TOKEN: 0})
forge("tokenizer_contradicts_fewer", "tokenizer_rule", "tokenizer size", "vocab.json has 6 ids, the statement says 5 (needs the tokenizer's file)", {"statement/competitors": 5})
forge("tokenizer_contradicts_more", "tokenizer_rule_unspeakable", "tokenizer size", "vocab.json has 6 ids, the statement says 8 (needs the tokenizer's file)", {"statement/competitors": 8})
forge("tokenizer_contradicts_text", "tokenizer_rule", "tokenizer text", "vocab.json has another text for this id (needs the tokenizer's file)", {"statement/text": "The"})
forge("tokenizer_contradicts_padding", "token_is_a_padded_row", "tokenizer text", "vocab.json has no text for a padded row (needs the tokenizer's file)", {"statement/text": ""})
# ---- support-only ----
forge("support_only_undetermined", N, "3 one solution", "four rows in two dimensions without biases: two solutions", {VALUES: None})
forge("support_only_no_solution", "unsettled_too_few_rows", "3 one solution", "two independent rows", {ROWS: "0 1", VALUES: None})
forge("support_only_mixed_sign", "support_only", "3 one sign", "the one relation has both signs", {ROWS: "0 1 5"})
forge("support_only_with_a_zero", N, "3 one sign", "the one relation leaves row 1 out", {ROWS: "0 1 3", VALUES: None})
forge("support_only_ball", C, "3 one solution", "evidence of the ball form does not cancel", {VALUES: None})
forge("support_only_gap", "support_only", "9", "solved, but there is no gap", {GAP: frac(TINY)})
forge("support_only_row_twice", "support_only", "8 distinct", "a row twice", {ROWS: "0 1 2 2"})
forge("support_only_own_row", "support_only", "8 range", "the own row: its D is 0", {ROWS: "6"})
forge("support_only_extra_twin", "tie_only_equal_rows", "3 one solution", "a row beside the equal one", {ROWS: "1 2 3 4", VALUES: None})
forge("support_only_v_positive", "never_rank_direction_bias_ignored", "9", "solved, but v > 0 in `readout`", {DOMAIN: "readout", VALUES: None, KIND: "unsettled"})
# ---- NaN and infinity among the needed values ----
NAN_WHY = "a value needed is not a number: nothing is proved"
NEEDED = {"nan_in_a_witness": ("nan", speakable("2", state("1 2", 1))), "infinity_in_a_witness": ("infinite", speakable("2", state("1 2", 1)))}
NEEDED |= {"nan_in_the_support": ("nan", unspeakable("unsettled", "0", "4 5", "1 1")), "infinity_in_the_support": ("infinite", unspeakable("unsettled", "0", "4 5", "1 1"))}
NEEDED |= {"nan_in_the_token": ("nan", unspeakable("unsettled", "0", "0 1", "1 1"))}
for NAME, (FOLDER, CLAIM) in NEEDED.items():
    REJECTED[NAME] = Forgery(Case(certificate(MODELS[FOLDER], 5 if "token" in NAME else 0, "readout", CLAIM), FOLDER, NAN_WHY), "6")
# ---- bundles ----
Q, M = "bundle_equality", MODELS["dozen"].tensors
UP, BP = "tensors/unembedding", "tensors/bias"
P4 = proof(M["unembedding"], [0, 1, 2, 5])
forge("bundle_wrong_hash", Q, "6.4 root", "one digit of the proof is wrong", {f"{UP}/proof": " ".join([flipped(P4[0]), *P4[1:]])})
forge("bundle_proof_too_short", Q, "6.4 short", "the last hash is missing", {f"{UP}/proof": " ".join(P4[:-1])})
forge("bundle_proof_null", Q, "6.4 short", "no proof", {f"{UP}/proof": None})
forge("bundle_proof_too_long", Q, "6.4 long", "one hash too many", {f"{UP}/proof": " ".join([*P4, P4[0]])})
forge("bundle_proof_where_none_is_due", "bundle_all_rows", "6.4 long", "all rows are there, and a hash", {f"{UP}/proof": "0" * 64})
forge("bundle_proof_reversed", Q, "6.4 root", "the right hashes in the wrong order", {f"{UP}/proof": " ".join(P4[::-1])})
forge("bundle_proof_of_the_bias", Q, "6.4 root", "the bias's proof for the unembedding", {f"{UP}/proof": " ".join(proof(M["bias"], [0, 1, 2, 5]))})
forge("bundle_rows_not_sorted", Q, "6.4 rows", "rows and bytes in another order", {f"{UP}/rows": "1 0 2 5", f"{UP}/bytes": b"".join(map(M["unembedding"].row, (1, 0, 2, 5))).hex()})
forge("bundle_row_twice", Q, "6.4 rows", "a row twice", {f"{UP}/rows": "0 1 2 2 5", f"{UP}/bytes": b"".join(map(M["unembedding"].row, (0, 1, 2, 2, 5))).hex()})
forge("bundle_extra_row", Q, "6.4 rows", "a row that the evidence does not use, with a right proof", {UP: part(M["unembedding"], [0, 1, 2, 3, 5])})
forge("bundle_extra_row_of_the_bias", Q, "6.4 rows", "the same for the bias", {BP: part(M["bias"], [0, 1, 2, 3, 5])})
forge("bundle_missing_row", Q, "6.4 rows", "a row of the support is not there", {UP: part(M["unembedding"], [0, 1, 5])})
forge("bundle_missing_token", Q, "6.4 rows", "the token's own row is not there", {UP: part(M["unembedding"], [0, 1, 2])})
forge("bundle_rows_null", Q, "6.4", "all rows of the unembedding, by null", {UP: {"rows": None, "bytes": M["unembedding"].data.hex(), "proof": None}})
forge("bundle_bytes_of_another_row", Q, "6.4 root", "row 3 in the place of row 2", {f"{UP}/bytes": b"".join(map(M["unembedding"].row, (0, 1, 3, 5))).hex()})
forge("bundle_bytes_exchanged", Q, "6.4 root", "rows 0 and 1 exchanged: the sum is the same", {f"{UP}/bytes": b"".join(map(M["unembedding"].row, (1, 0, 2, 5))).hex()})
forge("bundle_bytes_of_the_bias_changed", Q, "6.4 root", "a smaller bias for the token", {f"{BP}/bytes": part(M["bias"], [0, 1, 2, 5])["bytes"][:-4] + "00c4"})
forge("bundle_bytes_too_short", Q, "6.4 bytes", "one row less", {f"{UP}/bytes": b"".join(map(M["unembedding"].row, (0, 1, 2))).hex()})
forge("bundle_bytes_one_byte_short", Q, "6.4 bytes", "one byte less", {f"{UP}/bytes": part(M["unembedding"], [0, 1, 2, 5])["bytes"][:-2]})
forge("bundle_bytes_too_long", Q, "6.4 bytes", "one byte more", {f"{UP}/bytes": part(M["unembedding"], [0, 1, 2, 5])["bytes"] + "00"})
forge("bundle_bytes_empty", Q, "6.4 bytes", "no bytes", {f"{UP}/bytes": ""})
forge("bundle_gain_changed", Q, "6.3 hash", "another gain", {"tensors/gain/bytes": M["shift"].data.hex()})
forge("bundle_gain_too_short", Q, "6.3 bytes", "a gain of two values", {"tensors/gain/bytes": M["gain"].data[:4].hex()})
forge("bundle_gain_by_rows", Q, "6.3", "a gain with its rows named", {"tensors/gain/rows": "0 1 2"})
forge("bundle_gain_with_proof", Q, "6.3", "a gain with a proof", {"tensors/gain/proof": "0" * 64})
forge("bundle_gain_sha256", Q, "6.3 hash", "the gain's SHA-256 is wrong, its Merkle root right", {f"{TENSORS}/gain/sha256": flipped(M["gain"].sha256)})
forge("bundle_shift_merkle", Q, "6.3 hash", "the shift's Merkle root is wrong, its SHA-256 right", {f"{TENSORS}/shift/merkle": flipped(M["shift"].merkle)})
forge("bundle_merkle_of_another_model", Q, "6.4 root", "the root of another unembedding", {f"{U}/merkle": ids("tilted")["merkle"]})
forge("bundle_gap_overstated", Q, "9", "right rows, and a gap too large", {GAP: frac(3 + TINY)})
forge("bundle_multiplier_negative", Q, "8 values", "right rows, and a negative multiplier", {VALUES: "1 1 -1"})
forge("bundle_ball_condition", "bundle_ball_on_the_cone", "10 ball", "right rows, and d|Pu|^2 > R^2", {GAP: frac(TINY)})
forge("bundle_never_for_a_tie", "bundle_tie_lowered", "11 never", "right rows, and a kind that does not hold", {KIND: "never"})
forge("bundle_support_only_no_solution", "bundle_ball", "3 one solution", "right rows that do not cancel", {VALUES: None})
forge("bundle_competitors_fewer_under_all", Q, "4 competitors", "V = 12 by the stated shape", {"statement/competitors": 6})
forge("bundle_competitors_below_the_support", "bundle_tokenizer_rule", "8 range", "row 2 is no competitor among two", {"statement/competitors": 2})
forge("bundle_V_16", Q, "6.4 root", "16 rows claimed: the tree over 12 fits, the header does not", {f"{U}/shape": [16, 3], f"{TENSORS}/bias/shape": [16], "statement/competitors": 16, f"{UP}/proof": " ".join([*P4[:-1], M["unembedding"].tree(8, 12).hex()])})
forge("bundle_V_9", Q, "6.4 root", "9 rows claimed: the last four closed as if they were one", {f"{U}/shape": [9, 3], f"{TENSORS}/bias/shape": [9], "statement/competitors": 9})
forge("bundle_row_is_V", Q, "6.4 rows", "row 12 of 12 rows in the support", {ROWS: "0 1 12"})
forge("bundle_row_beyond_V", "bundle_ball", "6.4 rows", "row 12 of 12 rows, in the support and in the bundle", {ROWS: "12", f"{UP}/rows": "5 12", f"{BP}/rows": "5 12"})
forge("bundle_token_beyond_V", Q, "6.4 rows", "token 40 of 12 rows", {TOKEN: 40})
forge("bundle_dtype", Q, "6.4 root", "BF16 of the same length: the tree fits, the header does not", {f"{U}/dtype": "BF16"})
forge("bundle_d_and_V_exchanged", "bundle_norm_none", "6.4 rows", "[2, 6] for [6, 2]: rows of the support are beyond the stated two", {f"{U}/shape": [2, 6], f"{TENSORS}/bias/shape": [2], "statement/competitors": 2})
for NAME, OF, WHY in (("tie", T, "a tie state cannot be bundled"), ("witness", "witness_readout_rmsnorm", "a witness cannot be bundled")):
    REJECTED[f"bundle_with_a_{NAME}"] = Forgery(Case(bundle_of(ACCEPTED[OF].data, MODELS["square"].tensors), "-", WHY), "6.2")
# ---- weights that must not be read ----
for NAME in (*HOSTILE, "symlink_to_itself", "symlink_to_nothing"):
    DATA = copy.deepcopy(ACCEPTED[N].data)
    DATA["statement"]["model"] = f"hostile_{NAME}"
    REJECTED[f"weights_{NAME}"] = Forgery(Case(DATA, f"hostile_{NAME}", f"a good certificate; the weight file breaks its format: {NAME.replace('_', ' ')}"), "4 weights")
# fmt: on
