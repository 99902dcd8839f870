"""xent.compat.torch's modules, beside torch's own: losses, gradients, buffers, and what they are saved as."""

import copy
import importlib
import io
import pickle
import sys

import pytest

from xent.compat import torch as compat

torch = pytest.importorskip("torch", reason="torch is not installed")

torch.manual_seed(0)
LOGITS, LABELS = torch.randn(7, 5), torch.tensor([0, 4, -100, 2, 1, 1, 3])
SOFT, YES = torch.rand(7, 5).softmax(1), (torch.rand(7, 5) < 0.4).float()
CLASSES, ELEMENTS = torch.rand(5), torch.rand(7, 5)
CASES = {
    "CrossEntropyLoss": [
        ({}, LOGITS, LABELS),
        ({"weight": CLASSES, "reduction": "sum"}, LOGITS, LABELS),
        ({"ignore_index": 1, "label_smoothing": 0.1, "reduction": "none"}, LOGITS, LABELS.clamp(min=0)),
        ({"weight": CLASSES}, LOGITS, SOFT),
    ],
    "NLLLoss": [
        ({}, LOGITS.log_softmax(1), LABELS),
        ({"weight": CLASSES, "ignore_index": 4}, LOGITS, LABELS.clamp(min=0)),
    ],
    "BCELoss": [({}, LOGITS.sigmoid(), YES), ({"weight": ELEMENTS, "reduction": "none"}, LOGITS.sigmoid(), SOFT)],
    "BCEWithLogitsLoss": [
        ({}, LOGITS, YES),
        ({"weight": ELEMENTS, "pos_weight": CLASSES, "reduction": "sum"}, LOGITS, YES),
    ],
}
EVERY = [(name, *case) for name, cases in CASES.items() for case in cases]
NAMES = [*CASES]


def loss_and_slope(criterion, input, target):
    """The loss, and the gradient of its sum."""
    x = input.clone().requires_grad_()
    loss = criterion(x, target)
    loss.sum().backward()
    return loss.detach(), x.grad


def weighted(name):
    """A module with every buffer that it may have."""
    more = {"pos_weight": CLASSES.clone()} if name == "BCEWithLogitsLoss" else {}
    return getattr(compat, name)(weight=CLASSES.clone(), **more)


@pytest.mark.parametrize(("name", "options", "input", "target"), EVERY)
def test_losses_and_gradients_are_torchs(name, options, input, target):
    ours = loss_and_slope(getattr(compat, name)(**options), input, target)
    theirs = loss_and_slope(getattr(torch.nn, name)(**options), input, target)

    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_that_of_xents_function(name):
    """A tiny loss has its digits, which torch rounds to 0; or a bad label is named."""
    if name in ("CrossEntropyLoss", "BCEWithLogitsLoss"):
        logits = torch.tensor([[0.0, -20.0]]) if name == "CrossEntropyLoss" else torch.tensor([[20.0]])
        target = torch.tensor([0]) if name == "CrossEntropyLoss" else torch.ones(1, 1)
        assert getattr(compat, name)()(logits, target).item() == pytest.approx(2.0611536e-9)
    elif name == "NLLLoss":
        with pytest.raises(IndexError, match=r"nll_loss: `labels` must lie in \[0, 5\), got 1 outside"):
            compat.NLLLoss()(LOGITS, LABELS + torch.tensor([9, 0, 0, 0, 0, 0, 0]))
    else:
        with pytest.raises(RuntimeError, match=r"all elements of input should be between 0 and 1"):
            compat.BCELoss()(LOGITS, YES)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_torchs_in_all_but_the_loss(name):
    ours, theirs = weighted(name), getattr(torch.nn, name)(weight=CLASSES)

    assert isinstance(ours, type(theirs)) and repr(ours) == repr(theirs)
    assert ours.state_dict().keys() == {"weight", *(["pos_weight"] if name == "BCEWithLogitsLoss" else [])}
    assert ours.to(torch.float64).weight.dtype == torch.float64
    assert ours.to("meta").weight.device.type == "meta"
    assert type(ours).__name__ == name and type(ours).__doc__.startswith(f"``torch.nn.{name}``")


@pytest.mark.parametrize("name", NAMES)
def test_a_module_can_be_copied_pickled_and_loaded(name):
    criterion, other = weighted(name), getattr(compat, name)(weight=torch.zeros(5))
    other.load_state_dict(criterion.state_dict(), strict=name != "BCEWithLogitsLoss")
    file = io.BytesIO()
    torch.save(criterion, file)
    file.seek(0)
    copies = [copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion)), torch.load(file, weights_only=False)]

    assert torch.equal(other.weight, CLASSES)
    for each in copies:
        assert type(each) is type(criterion) and torch.equal(each.weight, CLASSES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["CrossEntropyLoss", "BCEWithLogitsLoss"])
def test_torch_compile_takes_a_module(name):
    _, options, input, target = next(case for case in EVERY if case[0] == name)
    criterion = getattr(compat, name)(**options)
    torch._dynamo.reset()
    compiled = torch.compile(criterion, backend="aot_eager", fullgraph=True)

    torch.testing.assert_close(loss_and_slope(compiled, input, target), loss_and_slope(criterion, input, target))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("outer", [lambda module: module, torch.nn.Sequential], ids=["alone", "inside"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_torch_jit_script_is_refused_with_what_to_use(name, outer):
    with pytest.raises(RuntimeError, match=rf"{name}: torch.jit.script .* torch.compile.* torch.nn.{name}"):
        torch.jit.script(outer(getattr(compat, name)()))


def test_without_torch_a_module_says_what_to_install_and_the_functions_are_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "xent.compat.torch.modules", raising=False)
    for name in NAMES:
        monkeypatch.delitem(vars(compat), name, raising=False)
    monkeypatch.delitem(vars(compat), "modules", raising=False)

    with pytest.raises(ModuleNotFoundError, match=r"NLLLoss is a module of torch, .* call xent.compat.torch.nll_loss"):
        compat.NLLLoss
    assert importlib.reload(compat).nll_loss is compat.functions.nll_loss
