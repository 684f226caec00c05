"""Programs over modules that give a log: run with PyTorch and with graphc, the logs must be equal.

Each takes the library (``t``) and a list to log into.  What is logged: names, shapes, texts, errors, orders of calls; elements only
where they do not depend on random numbers.
"""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

Log = Callable[..., None]


def plain(x: Any) -> str:
    """A text without what must differ: the library's name, graphc's place in the user's code, spaces that PyTorch forgot."""
    text = re.sub(r"( \([\w<>]+\.py:\d+\))+", "", str(x)).replace("torch Tensor", "torch.Tensor").replace("; isint", "; is int")
    text = text.replace("ParametersDict", "ParameterDict")
    return re.sub(r"graphc\.(nn\.[a-z_.]+\.)?", "torch.", re.sub(r"torch\.nn\.modules\.[a-z_]+\.", "torch.", text))


def attempt(log: Log, call: Callable[[], Any], message: bool = True) -> None:
    """Log what a call gives, or the class of its error and its message (first line)."""
    try:
        result = call()
    except Exception as error:
        log(type(error).__name__, plain(error.args[0] if error.args else "") if message else "")
    else:
        log(type(result).__name__)


def attempts(log: Log, *calls: Callable[[], Any]) -> None:
    for call in calls:
        attempt(log, call)


def make_net(t: Any) -> Any:
    """A module with everything in it: shared parameters, None, buffers of both kinds, containers."""
    nn = t.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.second = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(inplace=True))
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(3))
            self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Identity()})
            self.first_again = self.first
            self.scale = nn.Parameter(t.ones(4))
            self.register_parameter("absent", None)
            self.register_buffer("mask", t.ones(4))
            self.register_buffer("scratch", t.zeros(1), persistent=False)
            self.register_buffer("nothing", None)
            self.kept = nn.Buffer(t.zeros(2))
            self.lost = nn.Buffer(t.zeros(2), persistent=False)
            self.add_module("gap", None)
            self.tied = nn.Linear(4, 4)
            self.tied.weight = self.layers[0][0].weight

        def forward(self, x: Any) -> Any:
            x = self.second(self.first(x)) * self.scale * self.mask
            for layer in self.layers:
                x = layer(x)
            return self.heads["a"](x)

    return Net()


# ---- names, texts, registration ----------------------------------------------------------------------------------------------


def names(t: Any, log: Log) -> None:
    net = make_net(t)
    for once in (True, False):
        log([n for n, _ in net.named_parameters(remove_duplicate=once)])
        log([n for n, _ in net.named_buffers(prefix="p", remove_duplicate=once)])
        log([n for n, _ in net.named_modules(prefix="m", remove_duplicate=once)])
    log([n for n, _ in net.named_parameters(recurse=False)], [n for n, _ in net.named_children()])
    log(len(list(net.modules())), len(list(net.children())), len(list(net.buffers())))
    log(repr(net))
    log([n for n, _ in net._named_members(lambda m: m._buffers.items(), prefix="q")])
    log(sorted(net._parameters), sorted(net._buffers), list(net._modules), sorted(net._non_persistent_buffers_set))
    for target in ("layers.0.0", "", "layers.9", "heads.a.weight", "scale"):
        attempt(log, lambda target=target: net.get_submodule(target))
    for target in ("scale", "first.weight", "first.training", "first.nope", "mask"):
        attempt(log, lambda target=target: net.get_parameter(target))
    for target in ("mask", "second.1.running_mean", "scale", "first.weight"):
        attempt(log, lambda target=target: net.get_buffer(target))
    net.set_submodule("second.0", t.nn.Identity())
    log(repr(net.second))
    attempts(
        log,
        lambda: net.set_submodule("", t.nn.ReLU()),
        lambda: net.set_submodule("second.9", t.nn.ReLU(), strict=True),
        lambda: net.set_submodule("second.9", t.nn.ReLU()),
        lambda: net.set_submodule("first.weight", t.nn.ReLU()),
    )
    log(list(net.second._modules))


def registration(t: Any, log: Log) -> None:
    nn, m = t.nn, t.nn.Module
    attempts(
        log,
        lambda: m().register_parameter("w", t.ones(1)),
        lambda: m().register_buffer("w", 3),
        lambda: m().add_module("w", 3),
        lambda: m().register_parameter("w.a", None),
        lambda: m().register_parameter("", None),
        lambda: m().register_parameter(3, None),
        lambda: m().register_buffer(3, None),
        lambda: m().register_buffer("a.b", None),
        lambda: m().register_buffer("training", None),
        lambda: m().add_module(3, None),
        lambda: m().add_module("a.b", None),
        lambda: m().add_module("", None),
        lambda: m().add_module("forward", None),
        lambda: m().missing,
        lambda: m(3),
        lambda: m(a=3),
        lambda: nn.Linear(2, 2).train(3),
        lambda: nn.Linear(2, 2).to(t.int64),
        lambda: setattr(make_net(t), "first", 3),
        lambda: setattr(make_net(t), "scale", t.ones(3)),
        lambda: setattr(make_net(t), "mask", "text"),
    )

    class Early(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(1, 1)

    class EarlyParameter(nn.Module):
        def __init__(self) -> None:
            self.w = nn.Parameter(t.ones(1))

    attempts(log, Early, EarlyParameter)

    class Base:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            log("base", args, kwargs)

    class Cooperative(nn.Module, Base):
        call_super_init = True

    class Plain(nn.Module, Base):
        pass

    Cooperative(1, a=2)
    Plain()
    net = make_net(t)
    net.scale = None
    net.first = None
    net.mask = None
    net.extra = nn.Linear(1, 1)
    net.extra = nn.Parameter(t.ones(1))
    attempts(log, lambda: setattr(net, "extra", nn.Linear(1, 1)), lambda: setattr(net, "extra", nn.Buffer(t.ones(1))))
    del net.kept, net.tied
    log(list(net.state_dict()), [n for n, _ in net.named_modules()])
    log(isinstance(net._buffers["lost"], nn.Buffer), isinstance(nn.Parameter(t.ones(1)), nn.Buffer))


def texts(t: Any, log: Log) -> None:
    nn = t.nn
    for module in (
        nn.Sequential(),
        nn.ModuleList(),
        nn.ModuleList([nn.ReLU()]),
        nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)]),
        nn.ModuleDict({"x": nn.Sequential(nn.ReLU())}),
        nn.ParameterList(),
        nn.ParameterList([t.ones(2, 3)]),
        nn.ParameterList([nn.Parameter(t.ones(1)), 3, t.ones(2, 3)]),
        nn.ParameterDict({"a": t.ones(2), "b": 4, "c": nn.Parameter(t.ones(()))}),
        nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), inner=nn.Sequential(nn.Flatten()))),
        nn.DataParallel(nn.Linear(1, 1)),
        nn.quantized.FloatFunctional(),
    ):
        log(plain(repr(module)))
    log(repr(nn.Buffer(t.ones(2))), repr(nn.Parameter(t.ones(2), requires_grad=False)))
    attempt(log, lambda: t.func.functional_call(nn.Linear(2, 2), {"weight": t.ones(1), "x": t.ones(1)}, t.ones(1, 2), strict=True))
    log(plain(nn.Linear(1, 1).load_state_dict(nn.Linear(1, 1).state_dict())))
    log(plain(nn.Linear(1, 1).load_state_dict({"x": t.ones(1)}, strict=False)))

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ReLU()

        def extra_repr(self) -> str:
            return "one\ntwo"

        def _get_name(self) -> str:
            return "Other"

    log(repr(nn.Sequential(Named())))


# ---- containers --------------------------------------------------------------------------------------------------------------


def containers(t: Any, log: Log) -> None:
    nn = t.nn
    s = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    log(repr(s + nn.Sequential(nn.GELU())), repr(s * 2), repr(2 * nn.Sequential(nn.ReLU())), repr(s[1:]), repr(s[-1]))
    s += nn.Sequential(nn.GELU())
    s *= 2
    log(len(s), repr(s.pop(1)), repr(s.insert(2, nn.Mish())), repr(s.extend([nn.ReLU()])), repr(s.append(nn.Tanh())))
    del s[1:3]
    s[0] = nn.Identity()
    log(repr(s), [n for n, _ in s.named_children()])
    named = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Tanh(), c=nn.GELU()))
    log(repr(named[1:]), repr(named[0]))
    del named[0]
    log(repr(named))
    listed = nn.ModuleList([nn.ReLU()])
    listed += [nn.Tanh(), nn.GELU()]
    log(repr(listed.insert(1, nn.Mish())), repr(listed.pop(-1)), repr(listed + nn.ModuleList([nn.SELU()])), repr(listed[::2]))
    d = nn.ModuleDict([("a", nn.ReLU())])
    d.update({"b": nn.Tanh()})
    d["c"] = nn.GELU()
    log(repr(d.pop("a")), list(d), list(d.keys()), len(list(d.values())), "b" in d, [k for k, _ in d.items()])
    d.clear()
    log(len(d))
    attempts(
        log,
        lambda: nn.ModuleDict([1]),
        lambda: nn.ModuleDict([(1, 2, 3)]),
        lambda: nn.ModuleDict(3),
        lambda: nn.ModuleList(3),
        lambda: nn.ModuleList().append(3),
        lambda: nn.ModuleList().pop(0),
        lambda: nn.Sequential() + 3,
        lambda: nn.Sequential() * "a",
        lambda: nn.Sequential() * 0,
        lambda: nn.Sequential()[2],
        lambda: nn.Sequential().insert(3, nn.ReLU()),
        lambda: nn.Sequential().append(3),
        lambda: nn.Sequential().extend([3]),
        lambda: nn.ModuleDict({"a": nn.ReLU()})["b"],
        lambda: nn.ModuleDict({"a": 3}),
    )


def parameter_containers(t: Any, log: Log) -> None:
    nn = t.nn
    p = nn.ParameterList([t.ones(2), nn.Parameter(t.ones(3)), "text"])
    p.append(t.zeros(1))
    p.extend([t.zeros(2)])
    p += [5]
    p[0] = t.zeros(4)
    log(len(p), plain(repr(p)), list(p.state_dict()), plain(repr(p[1:3])), [type(x).__name__ for x in p])
    d = nn.ParameterDict({"b": t.ones(1), "a": t.ones(2)})
    d["c"] = 7
    d.update([("e", t.ones(3))])
    d.setdefault("f", t.ones(1))
    log(list(d), list(reversed(d)), "c" in d, d.get("zz", 1), len(d), list(d.state_dict()), list(d.keys()))
    log([k for k, _ in d.items()], d.pop("c"), d.popitem()[0], list(d.copy()), list(d | {"z": t.ones(1)}))
    log(plain(repr(d.fromkeys(["x"], 3))), [tuple(x.shape) for x in d.values()])
    del d["a"]
    d.clear()
    log(len(d), list(d.state_dict()))
    attempts(
        log,
        lambda: nn.ParameterList([1])[3],
        lambda: nn.ParameterList(3),
        lambda: nn.ParameterList(t.ones(2, 2)),
        lambda: nn.ParameterList()(1),
        lambda: nn.ParameterDict([1]),
        lambda: nn.ParameterDict(3),
        lambda: nn.ParameterDict()["zz"],
        lambda: nn.ParameterDict()(1),
    )


# ---- state dicts -------------------------------------------------------------------------------------------------------------


def states(t: Any, log: Log) -> None:
    net = make_net(t)
    state = net.state_dict()
    log(list(state), dict(state._metadata), [x.requires_grad for x in state.values()])
    log(list(net.state_dict(prefix="p.")), net.state_dict(keep_vars=True)["scale"] is net.scale)
    into = OrderedDict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log(net.state_dict(into, "q.") is into, list(into)[:2], hasattr(into, "_metadata"))
    bad = OrderedDict(state)
    del bad["first.bias"], bad["second.0.weight"]
    bad["mask"] = t.ones(3)
    bad["first.extra"] = t.ones(1)
    bad["other.weight"] = t.ones(1)
    bad["heads.a.weight"] = t.ones(5, 5)
    bad["layers.0"] = t.ones(1)
    for strict in (True, False):
        attempt(log, lambda strict=strict: net.load_state_dict(bad, strict=strict))
    del bad["mask"], bad["heads.a.weight"]
    found = net.load_state_dict(bad, strict=False)
    log(found.missing_keys, found.unexpected_keys, type(found).__name__, plain(found))
    attempts(log, lambda: net.load_state_dict([1]), lambda: net.load_state_dict({"scale": "text"}, strict=False))
    given = {k: x.clone() + 1 for k, x in net.state_dict().items()}
    weight = net.first.weight
    net.load_state_dict(given, assign=True)
    log(net.first.weight is weight, net.first.weight.data_ptr() == given["first.weight"].data_ptr(), type(net.scale).__name__)
    log(net.scale.tolist(), net.mask.tolist(), net.scale.requires_grad)
    old = t.nn.BatchNorm1d(2)
    log(plain(old.load_state_dict({k: v for k, v in old.state_dict().items() if "tracked" not in k}, strict=False)))
    number = t.nn.Module()
    number.register_buffer("n", t.zeros(()))
    number.load_state_dict({"n": t.ones(1)})
    log(number.n.tolist())


def extra_state(t: Any, log: Log) -> None:
    class Extra(t.nn.Module):
        _version = 3

        def __init__(self) -> None:
            super().__init__()
            self.w = t.nn.Parameter(t.ones(1))
            self.count = 5

        def get_extra_state(self) -> Any:
            return {"count": self.count}

        def set_extra_state(self, state: Any) -> None:
            self.count = state["count"]

    net = t.nn.Sequential(Extra(), t.nn.ReLU())
    state = net.state_dict()
    log(list(state), state["0._extra_state"], dict(state._metadata))
    net[0].count = 9
    log(plain(net.load_state_dict(state)), net[0].count)
    del state["0._extra_state"]
    attempt(log, lambda: net.load_state_dict(state))
    log(plain(net.load_state_dict(state, strict=False)))
    attempt(log, lambda: t.nn.Linear(1, 1).load_state_dict({**t.nn.Linear(1, 1).state_dict(), "_extra_state": 3}))


def state_hooks(t: Any, log: Log) -> None:
    net = t.nn.Sequential(t.nn.Linear(1, 1))
    layer = net[0]
    layer.register_state_dict_pre_hook(lambda m, prefix, keep: log("pre", type(m).__name__, prefix, keep))
    layer._register_state_dict_hook(lambda m, state, prefix, meta: log("post", list(state), prefix, meta))
    layer.register_state_dict_post_hook(lambda m, state, prefix, meta: state.pop(prefix + "bias") and None)
    state = net.state_dict()
    log(list(state))
    layer.register_load_state_dict_pre_hook(lambda m, state, prefix, *rest: log("load", type(m).__name__, list(state), rest[1:]))
    layer._register_load_state_dict_pre_hook(lambda state, prefix, *rest: state.update({prefix + "bias": t.ones(1)}))
    handle = net.register_load_state_dict_post_hook(lambda m, keys: log("after", keys.missing_keys, layer.bias.tolist()))
    log(plain(net.load_state_dict(state)))
    handle.remove()
    net.register_load_state_dict_post_hook(lambda m, keys: keys.unexpected_keys.clear())
    log(plain(net.load_state_dict({**state, "nope": t.ones(1)}, strict=False)))
    layer.register_state_dict_post_hook(lambda m, state, prefix, meta: state)
    attempt(log, net.state_dict)

    class Renaming(t.nn.Linear):
        def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
            log("own", prefix, local_metadata, list(state_dict), len(rest))
            if prefix + "w" in state_dict:
                state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
            log("then", self.weight.tolist())

        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            destination[prefix + "w"] = self.weight.detach()

    net = t.nn.Sequential(Renaming(1, 1, bias=False))
    log(list(net.state_dict()))
    log(plain(net.load_state_dict({"0.w": t.ones(1, 1) * 4})), net[0].weight.tolist())


# ---- hooks around calls ------------------------------------------------------------------------------------------------------


def call_hooks(t: Any, log: Log) -> None:
    nn = t.nn

    class Two(nn.Module):
        def forward(self, a: Any, b: Any = None) -> Any:
            log("forward", a.tolist(), None if b is None else b.tolist())
            return a if b is None else a + b

    m = Two()
    handles = [
        m.register_forward_pre_hook(lambda m, args: log("pre1", len(args))),
        m.register_forward_pre_hook(lambda m, args, kwargs: ((args[0] + 1,), kwargs), with_kwargs=True, prepend=True),
        m.register_forward_hook(lambda m, args, out: log("post1", args[0].tolist(), out.tolist())),
        m.register_forward_hook(lambda m, args, kwargs, out: out * 2, with_kwargs=True, prepend=True),
        m.register_forward_hook(lambda m, args, out: log("always"), always_call=True),
        nn.modules.module.register_module_forward_pre_hook(lambda m, args: log("global pre", type(m).__name__)),
        nn.modules.module.register_module_forward_hook(lambda m, args, out: log("global", type(m).__name__, out.tolist())),
    ]
    log(m(t.ones(1), b=t.ones(1)).tolist())
    log(list(m._forward_hooks_with_kwargs.values()), list(m._forward_hooks_always_called.values()), len(m._forward_hooks))
    attempt(log, lambda: m(t.ones(2), b=t.ones(3)), message=False)
    twin = copy.deepcopy(m)
    handles[0].remove()
    handles[2].remove()
    log(m(t.ones(1)).tolist(), len(twin._forward_pre_hooks))
    for handle in handles:
        handle.remove()
    log(m(t.ones(1)).tolist(), len(m._forward_hooks), len(m._forward_pre_hooks))
    with m.register_forward_pre_hook(lambda m, args: args[0] * 5):
        log(m(t.ones(1)).tolist())
    log(m(t.ones(1)).tolist())
    m.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    attempt(log, lambda: m(t.ones(1)), message=False)
    made: list[str] = []
    registered = nn.modules.module.register_module_parameter_registration_hook(lambda m, name, p: made.append(name))
    changed = nn.modules.module.register_module_module_registration_hook(lambda m, name, sub: nn.Tanh() if name == "x" else None)
    layer = nn.Linear(1, 1)
    layer.x = nn.ReLU()
    registered.remove()
    changed.remove()
    log(made, repr(layer))


def backward_hooks(t: Any, log: Log) -> None:
    nn = t.nn
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data.fill_(2.0)
    log_grads = lambda name: lambda m, a, b: log(name, [None if g is None else g.tolist() for g in (*a, *b)])
    layer.register_full_backward_hook(log_grads("full"))
    layer.register_full_backward_pre_hook(lambda m, g: (g[0] * 10,))
    layer.register_full_backward_hook(lambda m, a, b: (a[0] + 1,), prepend=True)
    whole = nn.modules.module.register_module_full_backward_hook(log_grads("global"))
    x = t.ones(1, 2, requires_grad=True)
    layer(x).sum().backward()
    whole.remove()
    log(x.grad.tolist(), layer.weight.grad.tolist())
    attempt(log, lambda: layer.register_backward_hook(log_grads("no")))

    class InDict(nn.Module):
        def forward(self, x: Any) -> Any:
            return {"a": x * 2}

    round_it = InDict()
    round_it.register_full_backward_hook(log_grads("never"))
    round_it(t.ones(1, requires_grad=True))["a"].sum().backward()
    old = nn.Linear(2, 1)
    old.register_backward_hook(lambda m, a, b: log("old", [g.tolist() for g in b]))
    old(t.ones(1, 2)).sum().backward()
    attempt(log, lambda: old.register_full_backward_hook(log_grads("no")))


# ---- changing everything -----------------------------------------------------------------------------------------------------


def conversions(t: Any, log: Log) -> None:
    nn = t.nn
    net = make_net(t)
    net.register_buffer("count", t.zeros(1, dtype=t.int64))
    net(t.ones(2, 3)).sum().backward()
    weight, buffer, grad = net.first.weight, net.mask, net.first.weight.grad
    show = lambda: log(str(weight.dtype)[-7:], str(weight.grad.dtype)[-7:], str(net.mask.dtype)[-7:], str(net.count.dtype)[-5:])
    log(net.double() is net, net.first.weight is weight, net.mask is buffer, net.first.weight.grad is grad)
    show()
    for call in (
        lambda: net.half(),
        lambda: net.to(t.bfloat16),
        lambda: net.to("cpu", t.float64, non_blocking=True),
        lambda: net.to(t.ones(1)),
        lambda: net.to(dtype=t.float16),
        lambda: net.float(),
        lambda: net.cpu(),
        lambda: net.type(t.float64),
    ):
        call()
        show()
    log(list(net.state_dict()), all(p.is_leaf for p in net.parameters()))
    empty = nn.Linear(2, 3).to_empty(device="cpu")
    log(tuple(empty.weight.shape), empty.weight.requires_grad)
    log(repr(nn.ReLU().cuda()), type(nn.Linear(1, 1).share_memory()).__name__)
    attempt(log, lambda: nn.Linear(1, 1).cuda(), message=False)
    attempt(log, lambda: nn.Linear(1, 1).to("cuda"), message=False)
    net = make_net(t)
    log([type(m).__name__ for m in _applied(net)])
    log(net._apply(lambda x: x.double(), recurse=False).scale.dtype == t.float64, net.first.weight.dtype == t.float32)
    net.requires_grad_(False)
    log([p.requires_grad for p in net.parameters()][:2])

    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Any:
            return super().train(False)

    both = nn.Sequential(Frozen(2), nn.Dropout())
    log(both.train()[0].training, both[1].training, both.eval()[1].training)


def _applied(net: Any) -> list[Any]:
    seen: list[Any] = []
    net.apply(seen.append)
    return seen


def copies(t: Any, log: Log) -> None:
    net = t.nn.Sequential(t.nn.Linear(2, 2), t.nn.BatchNorm1d(2))
    net[0].register_forward_hook(_double)
    net.eval()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), copy.copy(net)):
        log(repr(twin), twin.training, len(twin[0]._forward_hooks), list(twin.state_dict()))
        x = t.ones(1, 2)
        log(bool((twin(x) == net(x)).all()), type(twin[0].weight).__name__, twin[0].weight is net[0].weight)
    old = net.__getstate__() if hasattr(net, "__getstate__") else dict(net.__dict__)
    for name in ("_forward_hooks_with_kwargs", "_load_state_dict_post_hooks", "_backward_pre_hooks"):
        old.pop(name)
    revived = t.nn.Sequential.__new__(t.nn.Sequential)
    revived.__setstate__(old)
    log(revived(t.ones(1, 2)).shape[1], len(revived._load_state_dict_post_hooks))


def _double(module: Any, args: Any, output: Any) -> Any:
    return output * 2


# ---- lazy modules ------------------------------------------------------------------------------------------------------------


def lazies(t: Any, log: Log) -> None:
    nn = t.nn
    warnings.simplefilter("ignore")
    for make, shape in (
        (lambda: nn.LazyLinear(3), (2, 5)),
        (lambda: nn.LazyLinear(3, bias=False), (5,)),
        (lambda: nn.LazyConv1d(4, 3, groups=2), (2, 4, 7)),
        (lambda: nn.LazyConv2d(4, 3, padding=1, bias=False), (3, 7, 7)),
        (lambda: nn.LazyConv3d(2, 2), (1, 3, 4, 4, 4)),
        (lambda: nn.LazyConvTranspose1d(4, 3), (2, 3, 7)),
        (lambda: nn.LazyConvTranspose2d(4, 3, groups=2), (2, 6, 4, 4)),
        (lambda: nn.LazyConvTranspose3d(4, 2), (1, 2, 3, 3, 3)),
        (lambda: nn.LazyBatchNorm1d(), (4, 3)),
        (lambda: nn.LazyBatchNorm2d(affine=False), (2, 3, 4, 4)),
        (lambda: nn.LazyBatchNorm3d(track_running_stats=False), (2, 3, 2, 2, 2)),
        (lambda: nn.LazyInstanceNorm1d(), (2, 3, 4)),
        (lambda: nn.LazyInstanceNorm2d(affine=False), (2, 3, 4, 4)),
        (lambda: nn.LazyInstanceNorm3d(), (2, 3, 2, 2, 2)),
    ):
        m = make()
        log(repr(m), m.has_uninitialized_params(), list(m.state_dict()), m.training)
        twin, third = make(), copy.deepcopy(m) if not m._buffers else make()
        y = m(t.ones(*shape) + t.arange(shape[-1]))
        log(repr(m), type(m).__name__, tuple(y.shape), [tuple(v.shape) for v in m.state_dict().values()])
        log(len(m._forward_pre_hooks), len(m._load_state_dict_pre_hooks), [p.requires_grad for p in m.parameters()])
        log(plain(twin.load_state_dict(m.state_dict())), twin.has_uninitialized_params())
        if not isinstance(m, nn.modules.instancenorm._InstanceNorm):  # PyTorch's forget their channels
            log(type(twin).__name__, tuple(twin(t.ones(*shape)).shape), type(twin).__name__, repr(third) == repr(make()))
    attempts(
        log,
        lambda: nn.LazyConv2d(4, 3)(t.ones(3)),
        lambda: nn.LazyBatchNorm2d()(t.ones(2, 3)),
    )
    for bad in (
        lambda: nn.LazyLinear(1).weight.shape,
        lambda: nn.LazyLinear(1).weight + 1,
        lambda: nn.Linear(3, 2).load_state_dict(nn.LazyLinear(2).state_dict()),
        lambda: nn.LazyLinear(1).weight.share_memory_(),
    ):
        attempt(log, bad, message=False)
    half = nn.LazyLinear(2).double()
    half(t.ones(1, 3, dtype=t.float64))
    log(str(half.weight.dtype)[-7:], isinstance(nn.UninitializedParameter(), nn.Parameter), repr(nn.UninitializedBuffer()))


# ---- parametrizations ----------------------------------------------------------------------------------------------------------


def parametrizations(t: Any, log: Log) -> None:
    P, nn = t.nn.utils.parametrize, t.nn

    class Symmetric(nn.Module):
        def forward(self, x: Any) -> Any:
            log("computed")
            return x.triu() + x.triu(1).mT

        def right_inverse(self, x: Any) -> Any:
            return x.triu()

    class Doubled(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2

    class Wide(nn.Module):
        def forward(self, x: Any) -> Any:
            return t.cat([x, x])

    class Sum(nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a + b

        def right_inverse(self, x: Any) -> Any:
            return x - 1, t.ones_like(x)

    layer = nn.Linear(2, 2)
    layer.weight.data.fill_(1.0)
    log(P.register_parametrization(layer, "weight", Symmetric()) is layer, repr(layer), list(layer.state_dict()))
    P.register_parametrization(layer, "weight", Doubled())
    log(layer.weight.tolist(), type(layer).__name__, P.is_parametrized(layer), P.is_parametrized(layer, "bias"))
    log(P.type_before_parametrizations(layer).__name__, [n for n, _ in layer.named_parameters()], "weight" in layer._parameters)
    with P.cached():
        log(layer.weight is layer.weight)
    log(layer.weight is layer.weight)
    attempt(log, lambda: setattr(layer, "weight", t.ones(2, 2)))
    twin = copy.deepcopy(layer)
    log(type(twin).__name__, twin.weight.tolist(), repr(twin) == repr(layer))
    attempt(log, lambda: pickle.dumps(layer), message=False)
    P.remove_parametrizations(layer, "weight")
    log(repr(layer), type(layer).__name__, list(layer.state_dict()), layer.weight.tolist(), layer.weight.requires_grad)
    first = P.register_parametrization(nn.Linear(2, 2), "weight", Doubled())
    first.parametrizations.weight.original.data.fill_(5.0)
    P.remove_parametrizations(first, "weight", leave_parametrized=False)
    log(first.weight.tolist())
    several = nn.Linear(2, 2)
    several.weight.data.fill_(3.0)
    P.register_parametrization(several, "weight", Sum())
    log(list(several.state_dict()), several.weight.tolist(), several.parametrizations.weight.original0.tolist())
    several.weight = t.zeros(2, 2)
    log(several.parametrizations.weight.original0.tolist(), several.parametrizations["weight"].ntensors)
    attempts(
        log,
        lambda: P.remove_parametrizations(several, "weight", leave_parametrized=False),
        lambda: P.remove_parametrizations(nn.Linear(1, 1), "weight"),
        lambda: P.register_parametrization(nn.Linear(1, 1), "nope", Symmetric()),
    )
    attempt(log, lambda: P.register_parametrization(nn.Linear(2, 2), "weight", Wide()), message=False)
    P.register_parametrization(several, "bias", Wide(), unsafe=True)
    log(list(several.state_dict()), tuple(several.bias.shape))
    buffered = nn.BatchNorm1d(2)
    P.register_parametrization(buffered, "running_mean", Doubled())
    log(list(buffered.state_dict()), [n for n, _ in buffered.named_buffers()], repr(buffered))


def weight_norms(t: Any, log: Log) -> None:
    U, nn = t.nn.utils, t.nn
    warnings.simplefilter("ignore")
    for make in (lambda: nn.Linear(2, 2), lambda: nn.Conv1d(2, 3, 2)):
        m = U.weight_norm(make())
        log(list(m.state_dict()), [n for n, _ in m.named_parameters()], repr(m), hasattr(m, "weight"))
        attempt(log, lambda m=m: U.weight_norm(m))
        U.remove_weight_norm(m)
        log(list(m.state_dict()), len(m._forward_pre_hooks))
        m = U.spectral_norm(make())
        log(list(m.state_dict()), dict(m.state_dict()._metadata), [n for n, _ in m.named_buffers()])
        attempt(log, lambda m=m: U.spectral_norm(m))
        U.remove_spectral_norm(m)
        log(list(m.state_dict()), len(m._forward_pre_hooks), dict(m.state_dict()._metadata))
        m = U.parametrizations.weight_norm(make())
        old = U.weight_norm(make())
        log(list(m.state_dict()), repr(m), plain(m.load_state_dict(old.state_dict())))
        m = U.parametrizations.spectral_norm(make())
        log(list(m.state_dict()), repr(m))
    attempts(
        log,
        lambda: U.remove_weight_norm(nn.Linear(1, 1)),
        lambda: U.remove_spectral_norm(nn.Linear(1, 1)),
        lambda: U.spectral_norm(nn.Linear(1, 1), n_power_iterations=0),
        lambda: U.parametrizations.orthogonal(nn.Linear(2, 2), "bias"),
        lambda: U.parametrizations.orthogonal(nn.Linear(2, 2), orthogonal_map="other"),
        lambda: U.parametrizations.spectral_norm(nn.Linear(2, 2), n_power_iterations=0),
    )


def parallel(t: Any, log: Log) -> None:
    nn = t.nn
    m = nn.DataParallel(nn.Linear(2, 2), device_ids=[0, 1])
    log(list(m.state_dict()), tuple(m(t.ones(3, 2)).shape), m.device_ids)
    attempts(
        log,
        lambda: nn.parallel.DistributedDataParallel(nn.Linear(2, 2)),
        lambda: nn.parallel.gather([t.ones(2), t.ones(2)], "cpu"),
        lambda: nn.parallel.replicate(nn.Linear(2, 2), [0]),
        lambda: nn.quantized.FloatFunctional()(t.ones(1)),
    )
    f = nn.quantized.FloatFunctional()
    a, b = t.ones(2), -t.ones(2) * 2
    log(
        f.add(a, b).tolist(), f.mul(a, b).tolist(), f.add_relu(a, b).tolist(), f.cat([a, b]).tolist(), f.mul_scalar(a, 3.0).tolist()
    )
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(
        nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(2)))
    )
    log(repr(sync), list(sync.state_dict()))
    state = {"module.weight": 1, "module.bias": 2, "other": 3}
    nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")
    log(state)
    log(nn.modules.utils._pair(3), nn.modules.utils._triple([1, 2, 3]), nn.modules.utils._reverse_repeat_tuple((1, 2), 2))


SCENARIOS = [
    names, registration, texts, containers, parameter_containers, states, extra_state, state_hooks, call_hooks, backward_hooks,
    conversions, copies, lazies, parametrizations, weight_norms, parallel,
]  # fmt: skip
