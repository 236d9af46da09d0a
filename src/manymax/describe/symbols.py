# ruff: noqa: RUF001 -- look-alikes of Latin letters are what these tables are for
"""What LaTeX commands look like in plain text, by the role that they play in a formula."""

from __future__ import annotations


def _table(names: str, signs: str) -> dict[str, str]:
    return dict(zip(names.split(), signs.split(), strict=True))


LETTERS = {
    **_table("alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda", "α β γ δ ε ε ζ η θ κ λ"),
    **_table("mu nu xi pi rho sigma tau phi varphi chi psi omega", "μ ν ξ π ρ σ τ φ φ χ ψ ω"),
    **_table("Gamma Delta Theta Lambda Pi Sigma Phi Psi Omega", "Γ Δ Θ Λ Π Σ Φ Ψ Ω"),
    **_table(r"infty partial nabla top prime mid ell ldots dots cdots % | \# _", "∞ ∂ ∇ ᵀ ′ | ℓ … … … % ‖ # _"),
    **_table("lVert rVert Vert lvert rvert vert langle rangle", "‖ ‖ ‖ | | | ⟨ ⟩"),
}
SUMS = _table("+ - pm cup cap wedge vee setminus", "+ - ± ∪ ∩ ∧ ∨ ∖")
PRODUCTS = _table("/ cdot times circ odot", "/ · × ∘ ⊙")
RELATIONS = {
    **_table("= < > le leq ge geq ne neq approx in notin ll gg", "= < > ≤ ≤ ≥ ≥ ≠ ≠ ≈ ∈ ∉ ≪ ≫"),
    **_table(": to gets propto sim equiv mapsto leftarrow rightarrow", ": → ← ∝ ~ ≡ ↦ ← →"),
}
WORDS = _table("sum prod int", "Σ Π ∫")
OPEN = _table("( [ { lfloor lceil", "( [ { ⌊ ⌈")
CLOSE = _table(") ] } rfloor rceil", ") ] } ⌋ ⌉")
SPACES = {"quad": "   ", "qquad": "   ", ",": "", ";": " ", ":": " ", " ": " ", "!": "", "~": " ", "\\": ";  "}
STYLES = {"mathbf", "mathcal", "boldsymbol", "mathbb"}
BLACKBOARD = _table("R N Z E 1", "ℝ ℕ ℤ 𝔼 𝟙")
ACCENTS = _table("bar hat tilde", "\u0304 \u0302 \u0303")
SILENT = {"left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "displaystyle", "limits", "nolimits"}
SUBSCRIPT = _table("0 1 2 3 4 5 6 7 8 9 a e h i j k l m n o p r s t u v x + - = ( )",
                    "₀ ₁ ₂ ₃ ₄ ₅ ₆ ₇ ₈ ₉ ₐ ₑ ₕ ᵢ ⱼ ₖ ₗ ₘ ₙ ₒ ₚ ᵣ ₛ ₜ ᵤ ᵥ ₓ ₊ ₋ ₌ ₍ ₎")  # fmt: skip
SUPERSCRIPT = _table("0 1 2 3 4 5 6 7 8 9 n i + - ᵀ", "⁰ ¹ ² ³ ⁴ ⁵ ⁶ ⁷ ⁸ ⁹ ⁿ ⁱ ⁺ ⁻ ᵀ")
