"""The toolkit of methods: what a method's file, here or in a package of its own, is written with.

A method is a subclass of `Method`, usually of `DistilledStudent`, whose ``fit`` calls a trainer of this list. Nothing
is loaded before it is used, so that importing this package imports no torch.

    base          Method, Requirement, SingleModelMethod, DistilledStudent, MutualMethod, LogitMutualMethod
    trainers      train_solo, train_student, train_on_pairs, train_imitator, train_graph_student, train_peers
    one's own     build, as_predictor, item_forward, adam, batches, descend, mean_loss, train
    losses        supervised, kl_to_teacher, kl_of_logits, hinton, entropy
    ranges        PositiveFloat, NonNegativeFloat, UnitFloat, PositiveInt, NonNegativeInt

Parts that only some methods need (encodings, node pairs, local structure, ...) are in `gkdbench.training.blocks`.
"""
