"""`expert_linear`, routing by memory or by scores, and folded inference."""
