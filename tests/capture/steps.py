"""Capture programs: whole training steps, compiled as one function."""

from __future__ import annotations

import math

import graphc
from capture.harness import Compile, mlp, normal, program
from capture.inference import named
from graphc import nn, optim

F = nn.functional


def batch(size: int = 3):
    """Inputs and classes."""
    return normal(size, 4), graphc.randint(0, 2, (size,))


def _step_of(make, set_to_none: bool = True, clip: bool = False, traces: int = 2):
    """A body that trains with an optimizer."""

    def body(compile: Compile):
        model = mlp()
        optimizer = make(model.parameters())

        def step(x, classes):
            optimizer.zero_grad(set_to_none=set_to_none)
            loss = F.cross_entropy(model(x), classes)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1) if clip else None
            optimizer.step()
            return loss.detach(), norm

        call = compile(step)
        for _ in range(5):
            yield call(*batch()), model, optimizer

    return body


for _name, _make in {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd_with_momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.1),
    "adamw_amsgrad": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.1),
}.items():
    named(f"a_step_of_{_name}", _step_of(_make), 2)
named("a_step_with_clipping", _step_of(lambda p: optim.AdamW(p, lr=0.1), clip=True), 2)
named("a_step_that_zeroes", _step_of(lambda p: optim.Adam(p, lr=0.1), set_to_none=False), 3)


@program(2)
def a_rate_that_changes(compile: Compile):
    model = mlp()
    optimizer = optim.AdamW(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), classes)
        loss.backward()
        optimizer.step()
        return loss.detach()

    call = compile(step)
    for i in range(6):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5**i
        yield call(*batch()), model, optimizer


def _scheduled(make, traces: int = 2):
    def body(compile: Compile):
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        schedule = make(optimizer)

        def step(x, classes):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), classes)
            loss.backward()
            optimizer.step()
            schedule.step()
            return loss.detach()

        call = compile(step)
        for _ in range(5):
            yield call(*batch()), model, optimizer.param_groups[0]["lr"], schedule.last_epoch

    return body


named("a_step_schedule", _scheduled(lambda o: optim.lr_scheduler.StepLR(o, 2, 0.5)), 2)
named("a_cosine_schedule", _scheduled(lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 4)), 2)
named("a_warm_up", _scheduled(lambda o: optim.lr_scheduler.LambdaLR(o, lambda i: min(1.0, (i + 1) / 3))), 2)


@program(2)
def a_schedule_outside(compile: Compile):
    model = mlp()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.7)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for _ in range(4):
        call(*batch())
        schedule.step()
        yield model, optimizer, schedule.get_last_lr()


@program(3)
def accumulation_inside(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        losses = []
        for part, wanted in zip(x.chunk(2), classes.chunk(2), strict=True):
            loss = F.cross_entropy(model(part), wanted) / 2
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        return sum(losses)

    call = compile(step)
    for _ in range(3):
        yield call(*batch(4)), model


@program(4)
def accumulation_over_calls(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def accumulate(x, classes):
        loss = F.cross_entropy(model(x), classes) / 2
        loss.backward()
        return loss.detach()

    call = compile(accumulate)
    for i in range(6):
        yield call(*batch()), model
        if i % 2:
            optimizer.step()
            optimizer.zero_grad()


@program(3)
def a_step_every_other_call(compile: Compile):
    model = mlp()
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def step(x, classes, update):
        F.cross_entropy(model(x), classes).backward()
        if update:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)

    for p in model.parameters():
        p.grad = graphc.zeros_like(p)
    call = compile(step)
    for i in range(6):
        call(*batch(), i % 2 == 1)
        yield model, optimizer


@program(2)
def an_average_of_parameters(compile: Compile):
    model, shadow = mlp(), mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for p in shadow.parameters():
        p.requires_grad_(False)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()
        with graphc.no_grad():
            for average, p in zip(shadow.parameters(), model.parameters(), strict=True):
                average.lerp_(p, 0.1)

    call = compile(step)
    for _ in range(4):
        call(*batch())
        yield model, shadow


@program(4)
def an_averaged_model(compile: Compile):
    model = mlp()
    averaged = optim.swa_utils.AveragedModel(model)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for _ in range(3):
        call(*batch())
        averaged.update_parameters(model)
        yield model, averaged.n_averaged, averaged.module


@program(2)
def frozen_parameters(compile: Compile):
    model = mlp()
    model[0].requires_grad_(False)
    optimizer = optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for _ in range(3):
        call(*batch())
        yield model, optimizer


@program(6)
def thawed_while_training(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for i in range(6):
        model[0].requires_grad_(i >= 3)
        call(*batch())
        yield model


@program(2)
def tied_weights(compile: Compile):
    table = nn.Embedding(5, 3)
    out = nn.Linear(3, 5, bias=False)
    out.weight = table.weight
    optimizer = optim.AdamW(table.parameters(), lr=0.1)

    def step(tokens):
        optimizer.zero_grad()
        loss = F.cross_entropy(out(table(tokens[:-1])), tokens[1:])
        loss.backward()
        optimizer.step()
        return loss.detach()

    call = compile(step)
    for _ in range(3):
        yield call(graphc.randint(0, 5, (4,))), table, out.weight is table.weight


@program(2)
def dropout_in_a_step(compile: Compile):
    model = mlp(nn.Dropout(0.5))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for _ in range(4):
        call(*batch())
        yield model, graphc.rand(2)


@program(2)
def batch_norm_in_a_step(compile: Compile):
    model = mlp(nn.BatchNorm1d(5))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for _ in range(4):
        call(*batch())
        yield model


@program(6)
def a_grad_scaler(compile: Compile):
    model = mlp()
    optimizer, scaler = optim.SGD(model.parameters(), lr=0.1), graphc.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)

    def step(x, classes):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x), classes)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    call = compile(step)
    for i in range(5):
        x, classes = batch()
        call(x * math.inf if i == 2 else x, classes)
        yield model, scaler.get_scale()


@program(2)
def two_optimizers(compile: Compile):
    model = mlp()
    first, second = optim.SGD(model[0].parameters(), lr=0.1), optim.Adam(model[2].parameters(), lr=0.01)

    def step(x, classes):
        first.zero_grad(), second.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        first.step(), second.step()

    call = compile(step)
    for _ in range(3):
        call(*batch())
        yield model, first, second


@program(2)
def groups_of_parameters(compile: Compile):
    model = mlp()
    decayed = {"params": [model[0].weight, model[2].weight], "weight_decay": 0.1}
    optimizer = optim.AdamW([decayed, {"params": [model[0].bias, model[2].bias], "lr": 0.5}], lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for i in range(4):
        optimizer.param_groups[1]["lr"] = 0.5 / (i + 1)
        call(*batch())
        yield model, optimizer


@program(5)
def a_parameter_added_while_training(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x) + getattr(model, "extra", 0.0), classes).backward()
        optimizer.step()

    call = compile(step)
    for i in range(5):
        if i == 2:
            model.extra = nn.Parameter(graphc.zeros(2))
            optimizer.add_param_group({"params": [model.extra], "lr": 0.3})
        call(*batch())
        yield model


@program(5)
def a_layer_replaced_while_training(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for i in range(4):
        if i == 2:
            model[2] = nn.Linear(5, 2, bias=False)
            optimizer.param_groups[0]["params"] = list(model.parameters())
        call(*batch())
        yield model


@program(2)
def gradients_changed_by_hand(compile: Compile):
    model = mlp()

    def step(x, classes):
        model.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        with graphc.no_grad():
            for p in model.parameters():
                p.grad.clamp_(-0.1, 0.1)
                p -= 0.5 * p.grad

    call = compile(step)
    for _ in range(3):
        call(*batch())
        yield model


@program(2)
def a_penalty_on_gradients(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        (g,) = graphc.autograd.grad(model(x).sum(), [model[0].weight], create_graph=True)
        loss = model(x).square().mean() + g.square().sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    call = compile(step)
    for _ in range(3):
        yield call(normal(3, 4)), model


@program(2)
def skipping_bad_steps(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), classes)
        loss.backward()
        if graphc.isfinite(loss):
            optimizer.step()
        return loss.detach()

    call = compile(step)
    for i in range(4):
        x, classes = batch()
        yield call(x * math.inf if i == 2 else x, classes), model


@program(2)
def metrics_of_a_step(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    seen = {"right": graphc.zeros(()), "count": graphc.zeros(())}

    def step(x, classes):
        optimizer.zero_grad()
        y = model(x)
        loss = F.cross_entropy(y, classes)
        loss.backward()
        optimizer.step()
        seen["right"] += (y.argmax(1) == classes).sum()
        seen["count"] += len(x)
        return {"loss": loss.item(), "accuracy": (y.argmax(1) == classes).float().mean()}

    call = compile(step)
    for _ in range(4):
        yield call(*batch()), seen, model


@program(2)
def a_closure_for_the_optimizer(compile: Compile):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, classes):
        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), classes)
            loss.backward()
            return loss

        return optimizer.step(closure).detach()

    call = compile(step)
    for _ in range(3):
        yield call(*batch()), model


@program(3)
def alternating_networks(compile: Compile):
    maker, judge = nn.Linear(2, 4), nn.Linear(4, 1)
    of_maker, of_judge = optim.SGD(maker.parameters(), lr=0.1), optim.SGD(judge.parameters(), lr=0.1)

    def step(noise, real):
        of_judge.zero_grad()
        (judge(maker(noise).detach()).mean() - judge(real).mean()).backward()
        of_judge.step()
        of_maker.zero_grad()
        (-judge(maker(noise)).mean()).backward()
        of_maker.step()

    call = compile(step)
    for _ in range(4):
        call(normal(3, 2), normal(3, 4))
        yield maker, judge


@program(4)
def eager_and_compiled_steps_by_turns(compile: Compile):
    model = mlp()
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for i in range(5):
        (call if i % 2 else step)(*batch())
        yield model, optimizer


@program(4)
def a_state_dict_loaded_while_training(compile: Compile):
    model = mlp()
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    def step(x, classes):
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()

    call = compile(step)
    for i in range(5):
        if i == 1:
            kept = {k: v.clone() for k, v in model.state_dict().items()}, optimizer.state_dict()
        if i == 3:
            model.load_state_dict(kept[0])
            optimizer.load_state_dict(kept[1])
        call(*batch())
        yield model, optimizer
