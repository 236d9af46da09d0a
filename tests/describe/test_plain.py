import pytest

from manymax.describe.plain import plain, plain_text

FORMULAS = {
    r"\frac{1}{1 + e^{-(x_i / T + b)}}": "1 / (1 + e^(-(xᵢ / T + b)))",
    r"\frac{e^{x_i}}{\sum_{j=1}^n e^{x_j}}": "e^(xᵢ) / (Σⱼ₌₁ⁿ e^(xⱼ))",
    r"2\frac{a}{b}": "2(a / b)",
    r"\frac{a}{b} c": "(a / b)c",
    r"\frac{a + b}{c} - \frac{a}{b}": "(a + b) / c - a / b",
    r"b = -\log n, \qquad c=1": "b = -log n,   c = 1",
    r"\begin{cases} x + 1 & x \ge 0 \\ x & x<0\end{cases}": "{ x + 1 if x ≥ 0; x if x < 0 }",
    r"\begin{cases} x & x = 1 \\ \frac{1}{x} & \text{otherwise}\end{cases}": "{ x if x = 1; 1 / x otherwise }",
    r"\begin{aligned} a &= 1 \\ b &= 2 \end{aligned}": "a = 1; b = 2",
    r"\operatorname{softmax}(x)_i": "softmax(x)ᵢ",
    r"\lVert p-x\rVert_2^2": "‖p - x‖₂²",
    r"\max\left(0, x_i-\tau\right)^{1/(\alpha-1)}": "max(0, xᵢ - τ)^(1 / (α - 1))",
    r"q_i^\top k_j / \sqrt{d}": "qᵢᵀkⱼ / √d",
    r"\sqrt{x^2 + 4}": "√(x² + 4)",
    r"\{j : \lvert i-j\rvert \le w\}": "{j : |i - j| ≤ w}",
    r"x \in \mathbb{R}^{n \times d}": "x ∈ ℝ^(n × d)",
    r"a_y": "a_y",
    r"\hat{x}": "x̂",
    r"\unheard{x}": "unheard x",
    r"\exp \exp x": "exp exp x",
    r"": "",
}


@pytest.mark.parametrize("latex", FORMULAS)
def test_formulas_read_as_expected(latex):
    assert plain(latex) == FORMULAS[latex]


def test_text_keeps_its_words_and_loses_its_marks():
    assert plain_text(r"with `x` and $\log n$; $$\alpha_1 = 2$$ ends") == "with x and log n; α₁ = 2 ends"
