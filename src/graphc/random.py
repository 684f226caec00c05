"""The default generator under the names of ``torch.random``.

Enters: seeds, states.  Leaves: generators, states.  Never here: how numbers are drawn.
"""

from __future__ import annotations

from graphc.namespace import default_generator, fork_rng, get_rng_state, initial_seed, manual_seed, seed, set_rng_state

__all__ = ["default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]
