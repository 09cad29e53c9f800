"""Wrong versions of the functions about distillation, neurons, the comparison and the pipeline."""

from functools import partial

from mutants import Mutant

_loss, _teach, _importance, _neurons, _compare, _design = (
    partial(Mutant, name)
    for name in (
        "DistillationLoss",
        "train_with_distillation",
        "compute_neuron_importance",
        "prune_layer_neurons",
        "compare_compression_techniques",
        "design_pipeline",
    )
)

MUTANTS: tuple[Mutant, ...] = (
    _loss(
        "self.alpha * self.temperature**2 * soft", "self.alpha * soft", ("square of the temperature missing",)
    ),
    _loss(
        "self.alpha * self.temperature**2 * soft + (1 - self.alpha) * hard",
        "(1 - self.alpha) * self.temperature**2 * soft + self.alpha * hard",
        ("alpha on the wrong side",),
    ),
    _loss(
        "torch.log_softmax(teacher_logits / self.temperature, dim=1)",
        "torch.log_softmax(teacher_logits, dim=1)",
        ("teacher not softened",),
    ),
    _loss('reduction="batchmean"', 'reduction="mean"', ("average over classes",)),
    _loss(
        "torch.log_softmax(student_logits / self.temperature, dim=1)",
        "torch.softmax(student_logits / self.temperature, dim=1)",
        ("logarithm missing",),
    ),
    _loss(
        "nn.functional.cross_entropy(student_logits, labels)",
        "nn.functional.cross_entropy(student_logits / self.temperature, labels)",
        ("cross entropy at the temperature",),
    ),
    _loss("math.isfinite(temperature) and temperature > 0", "True", ("any temperature accepted",)),
    _teach(
        "student = copy.deepcopy(student.model if isinstance(student, Compressed) else student)",
        "student = student.model if isinstance(student, Compressed) else student",
        ("student changed",),
    ),
    _teach(
        "copy.deepcopy(teacher).eval()",
        "copy.deepcopy(teacher)",
        ("teacher's mode left as it came", "teacher in training mode"),
    ),
    _teach("taught[some]", "taught[: len(some)]", ("teacher's answers of other samples",)),
    _teach("torch.randperm(len(train), generator=order)", "torch.arange(len(train))", ("not shuffled",)),
    _teach(
        "torch.randperm(len(train), generator=order)", "torch.randperm(len(train))", ("order left to chance",)
    ),
    _teach(
        "best, best_state = value, copy.deepcopy(student.state_dict())",
        "best, best_state = value, student.state_dict()",
        ("last epoch",),
    ),
    _teach("            optimizer.zero_grad()\n", "", ("gradients added up",)),
    _teach(
        "                keep()\n        student.eval()",
        "                pass\n        student.eval()",
        ("after_step never called",),
    ),
    _importance("w.abs().sum(1)", "w.abs().mean(1)", ("l1 averaged",)),
    _importance("torch.linalg.vector_norm(w, dim=1)", "w.square().sum(1)", ("root missing",)),
    _importance(
        "w.var(dim=1, correction=0)",
        "w.var(dim=1)",
        ("variance of a sample", "variance of a sample, refused"),
    ),
    _importance(
        "activations.detach().double().abs().transpose",
        "activations.detach().double().transpose",
        ("magnitude of activations missing",),
    ),
    _importance("flatten(1).mean(1)", "flatten(1).sum(1)", ("activations added up",)),
    _importance("generator=torch.Generator().manual_seed(seed), dtype", "dtype", ("lots without a seed",)),
    _neurons(
        "torch.argsort(scores, stable=True)[gone:]",
        "torch.argsort(scores, stable=True)[: width - gone]",
        ("most important removed",),
    ),
    _neurons("[gone:].sort().values", "[gone:]", ("order lost",)),
    _neurons("round(ratio * width)", "int(ratio * width)", ("number rounded down",)),
    _neurons('    cut(modules[layer], "bias", 0, keep)\n', "", ("bias not cut",)),
    _neurons(
        "(keep[:, None] * places_each + torch.arange(places_each)).flatten()",
        "(keep[None] + width * torch.arange(places_each)[:, None]).flatten()",
        ("places of a channel strewn",),
    ),
    _neurons(
        '("weight", "bias", "running_mean", "running_var")',
        '("weight", "bias")',
        ("running averages not cut",),
    ),
    _neurons("modules[layer], importance, activations", 'modules[layer], "l2", activations', ("always l2",)),
    _compare("engine=engine, seed=seed", "engine=engine", ("seed not passed on",)),
    _compare('        Recipe(name="fp32", role="baseline"),\n', "", ("baseline missing",)),
    _compare("steps=(pruned, recover), ship=both", "steps=(pruned, recover)", ("archive missing",)),
    _compare("recover, int8), ship=both", "int8, recover), ship=both", ("quantized before recovering",)),
    _compare('{**pruned, "score": "random"}', "pruned", ("control prunes by magnitude",)),
    _compare(
        'control_of="distill", steps=(small, recover)',
        'control_of="distill", steps=(small, {"technique": "distill"})',
        ("control taught as well",),
    ),
    _design("0.85 * budget_bytes", "budget_bytes", ("margin ignored",)),
    _design("1 - (32 * room - 1) / 8", "1 - 4 * room", ("places forgotten",)),
    _design("1 - math.sqrt(room / smallest)", "1 - room / smallest", ("neurons counted once",)),
    _design("recover, int8]", "int8, recover]", ("quantized before recovering", "taught at the very end")),
    _design(', ship=("archive",)', "", ("zeros shipped as ONNX",)),
    _design("    if room >= 1:\n", "    if room > 4:\n", ("float never enough",)),
)
