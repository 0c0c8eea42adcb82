"""Plans of the shipped experiments."""

from dap.experiments import ConfigTree, Plan, find_experiment

TREE = ConfigTree()
STEP_3 = "faster-rcnn_r50_fpn_40k_in1k-boxes"


def planned(name, only=(), seeds=(None,), **settings):
    plan = Plan(TREE, **settings)
    plan.add(find_experiment(name).select(tuple(only)), seeds)
    return plan.jobs
