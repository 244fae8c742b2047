"""The proposers, one strategy a file."""

from engine.errors import ContentError
from engine.optim.history import Proposer
from engine.optim.proposers.agent_optimizer import AgentOptimizerProposer
from engine.optim.proposers.ape import APEProposer
from engine.optim.proposers.bias import BiasProposer
from engine.optim.proposers.bootstrap_demos import BootstrapDemosProposer
from engine.optim.proposers.craft import CraftProposer
from engine.optim.proposers.demos import DemosProposer
from engine.optim.proposers.evoprompt_de import EvoPromptDEProposer
from engine.optim.proposers.evoprompt_ga import EvoPromptGAProposer
from engine.optim.proposers.expel import ExpeLProposer
from engine.optim.proposers.gepa import GEPAProposer
from engine.optim.proposers.joint import JointProposer
from engine.optim.proposers.labelled_demos import LabelledDemosProposer
from engine.optim.proposers.nearest_demos import NearestDemosProposer
from engine.optim.proposers.opro import OPROProposer
from engine.optim.proposers.optoprime import OptoPrimeProposer
from engine.optim.proposers.order_demos import OrderDemosProposer
from engine.optim.proposers.protegi import ProTeGiProposer
from engine.optim.proposers.self_discover import SelfDiscoverProposer
from engine.optim.proposers.settings import SettingsProposer
from engine.optim.proposers.textual_gradient import TextualGradientProposer
from engine.optim.proposers.token_caps import TokenCapsProposer
from engine.optim.proposers.typed_edits import TypedEditsProposer
from engine.tasks.taskfile import nearest

PROPOSERS: dict[str, type[Proposer]] = {
    kind.name: kind
    for kind in (
        # what a model is shown, and how its answers are weighed
        DemosProposer,
        JointProposer,
        NearestDemosProposer,
        LabelledDemosProposer,
        BootstrapDemosProposer,
        OrderDemosProposer,
        BiasProposer,
        SettingsProposer,
        TokenCapsProposer,
        # words, from executions
        TypedEditsProposer,
        TextualGradientProposer,
        OptoPrimeProposer,
        ProTeGiProposer,
        GEPAProposer,
        ExpeLProposer,
        OPROProposer,
        EvoPromptGAProposer,
        EvoPromptDEProposer,
        # words, from the program and its examples alone
        APEProposer,
        SelfDiscoverProposer,
        # tools
        CraftProposer,
        AgentOptimizerProposer,
    )
}
ALL = "all"


def make_proposers(names: tuple[str, ...]) -> list[Proposer]:
    """Proposers by name, in the order given; every one there is for `all` alone.

    Raises:
        ContentError: an unknown name, one given twice, or none at all.
    """
    if names == (ALL,):
        return [kind() for kind in PROPOSERS.values()]
    if not names:
        raise ContentError(f"no proposers given: choose from {', '.join(PROPOSERS)}")
    for name in names:
        if name not in PROPOSERS:
            raise ContentError(f"unknown proposer {name!r}: {nearest(name, [*PROPOSERS, ALL])}")
        if names.count(name) > 1:
            raise ContentError(f"proposer {name!r} is named twice")
    return [PROPOSERS[name]() for name in names]
