"""HiPPO: matrices, bases, memories, normal plus low-rank forms, and the initial systems that come of them."""
