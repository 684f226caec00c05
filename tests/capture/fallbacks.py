"""The programs whose code runs eagerly for some call today, and the reason given.  A test fails when one does not any more."""

_SHARED = "an argument shares memory with a tensor that the call writes to"

FALLBACKS: dict[str, str] = {
    # the trace knew two memories where there is one
    "the_same_tensor_written": _SHARED,
    "arguments_that_overlap": _SHARED,
    "an_argument_that_is_state": _SHARED,
    "an_argument_that_overlaps_itself": _SHARED,
    # the caller's tensor would become part of the tape
    "gradients_into_an_argument": "gradients would flow into a tensor from outside",
    # the error comes with backward, not with the call
    "backward_that_would_fail": "backward from the results fails",
    "an_error_in_backward": "backward from the results fails",
}
