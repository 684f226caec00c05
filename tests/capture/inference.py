"""Capture programs: inference and training use of compiled modules, dtypes, layouts."""

from __future__ import annotations

import copy

import graphc
from capture.harness import Compile, leaf, mlp, normal, outcome, program
from graphc import nn, optim

F = nn.functional


def forward_only(module: nn.Module, *shape: int):
    """A program body that calls a module a few times without gradients."""

    def body(compile: Compile):
        call = compile(module)
        with graphc.no_grad():
            for _ in range(4):
                yield call(normal(*shape))
        yield module

    return body


def named(name: str, body, traces: int = 1) -> None:
    """Enter a body that was made, under a name."""
    body.__name__ = name
    program(traces)(body)


def _modules() -> dict[str, tuple]:
    return {
        "a_perceptron": (lambda: mlp(), (3, 4)),
        "a_convolution_net": (
            lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            (1, 2, 4, 4),
        ),
        "batch_norm_in_eval": (lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval(), (2, 2, 3, 3)),
        "a_transformer_layer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval(), (2, 3, 4)),
        "an_lstm": (lambda: nn.LSTM(3, 4, batch_first=True), (2, 3, 3)),
        "group_norm_and_silu": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU()), (2, 4, 3)),
    }


def _body_of(make, shape):
    def body(compile: Compile):
        module = make()
        yield from forward_only(module, *shape)(compile)

    return body


for _name, (_make, _shape) in _modules().items():
    named(_name, _body_of(_make, _shape))


@program()
def an_embedding_with_attention(compile: Compile):
    table, attend = nn.Embedding(7, 4), nn.MultiheadAttention(4, 2, batch_first=True)

    def encode(tokens):
        x = table(tokens)
        return attend(x, x, x, need_weights=False)[0].mean(1)

    call = compile(encode)
    with graphc.inference_mode():
        for _ in range(4):
            yield call(graphc.randint(0, 7, (2, 3)))


@program()
def parameters_loaded_between_calls(compile: Compile):
    model, other = mlp(), mlp()
    call = compile(model)
    with graphc.no_grad():
        x = normal(2, 4)
        yield call(x), call(x), call(x), call(x)
        model.load_state_dict(other.state_dict())
        yield call(x)
        model[0].weight.mul_(2)
        yield call(x)
        model[0].bias.data = normal(5)
        yield call(x), model


@program()
def gradients_through_a_module(compile: Compile):
    model = mlp()
    call = compile(model)
    for _ in range(4):
        x = leaf(3, 4)
        call(x).square().sum().backward()
        yield x, model


@program(4)
def train_then_eval(compile: Compile):
    model = mlp(nn.Dropout(0.5))
    call = compile(model)
    for training in (True, False, True, False):
        model.train(training)
        yield call(normal(3, 4)), model


@program(3)
def one_module_in_three_modes(compile: Compile):
    model = mlp()
    call = compile(model)
    x = normal(2, 4)
    for _ in range(3):
        yield call(x)
        with graphc.no_grad():
            yield call(x)
        with graphc.inference_mode():
            yield call(x)


@program()
def an_eager_optimizer_around_a_compiled_model(compile: Compile):
    model = mlp()
    call, optimizer = compile(model), optim.Adam(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(call(normal(3, 4)), graphc.randint(0, 2, (3,))).backward()
        optimizer.step()
        yield model, optimizer


@program(2)
def two_models_share_a_compiled_function(compile: Compile):
    first, second = mlp(), mlp()
    call = compile(lambda model, x: model(x) * 2)
    for model in (first, second, first, second, first):
        yield call(model, normal(2, 4))


@program(3)
def a_copy_of_a_module(compile: Compile):
    model = mlp()
    call = compile(model)
    yield call(normal(2, 4))
    twin = compile(copy.deepcopy(model))
    yield twin(normal(2, 4)), call(normal(2, 4))


@program()
def a_compiled_method(compile: Compile):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(normal(3))
            self.scaled = compile(self.scale)

        def scale(self, x, power=2):
            return x * self.weight**power

    module = Scaled()
    for _ in range(4):
        module.scaled(normal(2, 3)).sum().backward()
        yield module.weight


@program()
def weight_normalised_layers(compile: Compile):
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    call = compile(lambda x: layer(x))
    for _ in range(3):
        call(normal(2, 4)).sum().backward()
        yield layer


# ---- dtypes --------------------------------------------------------------------------------------------------------


def _of_dtype(name: str):
    def body(compile: Compile):
        dtype = getattr(graphc, name)
        call = compile(lambda x, y: ((x * y + 1).sum(0), (x - y).abs().max(), x.cumsum(0), x @ y.T))
        for _ in range(4):
            yield call((normal(2, 3) * 4).to(dtype), (normal(2, 3) * 4).to(dtype))

    return body


for _dtype in ("float64", "float16", "bfloat16", "int64", "int32", "int16", "uint8"):
    named(f"arithmetic_of_{_dtype}", _of_dtype(_dtype))


def _gradients_of_dtype(name: str):
    def body(compile: Compile):
        call = compile(lambda x, w: ((x @ w).tanh() * x.mean()).softmax(-1))
        for _ in range(3):
            x, w = leaf(2, 3, dtype=getattr(graphc, name)), leaf(3, 3, dtype=getattr(graphc, name))
            x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
            y = call(x, w)
            (y * y).sum().backward()
            yield y, x, w

    return body


for _dtype in ("float64", "float16", "bfloat16"):
    named(f"gradients_of_{_dtype}", _gradients_of_dtype(_dtype))


@program()
def complex_numbers(compile: Compile):
    call = compile(lambda x: (graphc.fft.fft(x).abs(), graphc.complex(x, x * 2) * 1j))
    for _ in range(3):
        yield call(normal(2, 4))


@program(4)
def dtypes_that_differ_from_call_to_call(compile: Compile):
    call = compile(lambda x: x * 2 + 1)
    for dtype in ("float32", "int64", "float16", "bool", "float32", "int64"):
        yield call(normal(3).to(getattr(graphc, dtype)))


@program(2)
def the_default_dtype(compile: Compile):
    call = compile(lambda x: x + graphc.ones(2))
    for dtype in (graphc.float32, graphc.float64, graphc.float32):
        graphc.set_default_dtype(dtype)
        try:
            yield call(graphc.zeros(2))
        finally:
            graphc.set_default_dtype(graphc.float32)


@program(2)
def autocast(compile: Compile):
    model = mlp()
    call = compile(model)
    x = normal(2, 4)
    for enabled in (True, False, True, False):
        with graphc.autocast("cpu", dtype=graphc.bfloat16, enabled=enabled):
            y = call(x)
        y.float().sum().backward()
        yield y, model


@program(2)
def autocast_inside(compile: Compile):
    model = mlp()

    def step(x):
        with graphc.autocast("cpu", dtype=graphc.bfloat16):
            loss = model(x).float().square().mean()
        loss.backward()
        return loss.detach()

    call = compile(step)
    for _ in range(3):
        model.zero_grad(set_to_none=False)
        yield call(normal(2, 4)), model


# ---- layouts -------------------------------------------------------------------------------------------------------


def _of_layout(lay_out, traces: int = 2):
    def body(compile: Compile):
        call = compile(lambda x: (x.exp().sum(0), x.reshape(-1) * 2, x.T.contiguous(), x.softmax(-1), x[1:] + 1))
        for _ in range(3):
            yield call(lay_out(normal(4, 4))), call(normal(4, 4))

    return body


for _name, _lay_out in {
    "transposed_arguments": lambda x: x.t(),
    "strided_arguments": lambda x: graphc.stack([x, x], -1)[..., 1],
    "sliced_arguments": lambda x: graphc.cat([x, x])[2:6],
    "expanded_arguments": lambda x: x[:1].expand(4, 4),
    "stepped_arguments": lambda x: graphc.cat([x, x])[::2],
    "offset_arguments": lambda x: graphc.cat([x.reshape(-1), x[0]])[3:19].view(4, 4),
}.items():
    named(_name, _of_layout(_lay_out), 2)


@program(2)
def channels_last_images(compile: Compile):
    model = nn.Conv2d(2, 3, 3)
    call = compile(model)
    with graphc.no_grad():
        for _ in range(3):
            x = normal(1, 2, 4, 4)
            yield call(x), call(x.to(memory_format=graphc.channels_last))


@program()
def tensors_without_dims(compile: Compile):
    call = compile(lambda x, y: (x * y, x[None], x.sum(), graphc.stack([x, y]), x.reshape(1, 1).expand(2, 2)))
    for _ in range(4):
        yield call(normal(), normal())


@program(2)
def writes_to_a_transposed_argument(compile: Compile):
    def double(x):
        y = x.reshape(-1)
        y.mul_(2)
        x.add_(1)
        return y

    call = compile(double)
    for _ in range(3):
        x, y = normal(2, 3), normal(3, 2).t()
        yield call(x), x, call(y), y


@program(2)
def views_that_a_layout_forbids(compile: Compile):
    call = compile(lambda x: x.view(-1) * 2)
    yield call(normal(2, 3))
    yield outcome(call, normal(3, 2).t())
    yield call(normal(2, 3))


@program(2)
def contiguous_of_an_argument(compile: Compile):
    def filled(x):
        y = x.contiguous()
        y.fill_(3)
        return x.sum()

    call = compile(filled)
    for x in (normal(2, 3), normal(3, 2).t(), normal(2, 3)):
        yield call(x), x
